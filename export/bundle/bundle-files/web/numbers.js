// The answer for a recording: its table, and all windows as a file.
import { percent, time } from "./words.js";

const SHOWN = 10;

/**
 * What the classes have over all windows.
 *
 * @param {{start: number, probabilities: Float32Array}[]} windows
 * @param {string[]} labels
 * @returns {{label: string, index: number, mean: number, highest: number, at: number}[]} best first; at: seconds
 */
export function pooled(windows, labels) {
  const classes = labels.map((label, index) => {
    let [sum, highest, at] = [0, -1, 0];
    for (const { start, probabilities } of windows) {
      sum += probabilities[index];
      if (probabilities[index] > highest) [highest, at] = [probabilities[index], start];
    }
    return { label, index, mean: sum / windows.length, highest, at };
  });
  return classes.sort((a, b) => b.mean - a.mean);
}

/** The rows of the table; a button shows those that are left out. */
export class Numbers {
  #body = document.getElementById("numbers");
  #more = document.getElementById("all");
  #classes = [];
  #all = false;

  constructor() {
    this.#more.addEventListener("click", () => {
      this.#all = !this.#all;
      this.show(this.#classes);
    });
  }

  show(classes) {
    this.#classes = classes;
    this.#more.hidden = classes.length <= SHOWN;
    this.#more.textContent = this.#all ? `Show the first ${SHOWN}` : `Show all ${classes.length} classes`;
    this.#body.replaceChildren(...classes.slice(0, this.#all ? undefined : SHOWN).map(row));
  }
}

function row({ label, mean, highest, at }) {
  const line = document.createElement("tr");
  const name = Object.assign(document.createElement("th"), { scope: "row", textContent: label });
  const bar = Object.assign(document.createElement("div"), { className: "bar", ariaHidden: true });
  bar.append(document.createElement("div"));
  bar.firstChild.style.width = `${100 * mean}%`;
  const cells = [bar, data(mean), data(highest)].map((content) => {
    const cell = document.createElement("td");
    cell.append(content);
    return cell;
  });
  cells[0].className = "bar-column";
  cells[1].className = cells[2].className = "number";
  cells[2].title = `at ${time(at)}`;
  line.append(name, ...cells);
  return line;
}

function data(share) {
  return Object.assign(document.createElement("data"), { value: share, textContent: percent(share) });
}

/** All windows as comma-separated values, a row each. */
export function asCsv(windows, labels) {
  const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
  const head = ["start", "stop", ...labels].map(quoted).join(",");
  const rows = windows.map(({ start, stop, probabilities }) => [start, stop, ...probabilities].join(","));
  return [head, ...rows, ""].join("\n");
}
