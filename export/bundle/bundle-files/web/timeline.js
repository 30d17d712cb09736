// The likeliest classes over time: a row each, the darker the more probable. A slider over the windows, for keyboards
// and screen readers too.
import { percent, time } from "./words.js";

const ROWS = 6;
const ROW = 28; // height in CSS pixels, as in style.css
const AXIS = 24;

export class Timeline {
  #slider = document.getElementById("timeline");
  #canvas = document.getElementById("timeline-canvas");
  #names = document.getElementById("timeline-labels");
  #reading = document.getElementById("timeline-reading");
  #windows = [];
  #rows = [];
  #chosen = 0;

  /** @param {(seconds: number) => void} moved is told where the user went */
  constructor(moved) {
    const go = (index) => {
      this.#choose(index);
      moved(this.#windows[this.#chosen].start);
    };
    this.#slider.addEventListener("keydown", (event) => {
      const last = this.#windows.length - 1;
      const page = Math.max(Math.round(this.#windows.length / 10), 1);
      const to = {
        ArrowLeft: this.#chosen - 1,
        ArrowDown: this.#chosen - 1,
        ArrowRight: this.#chosen + 1,
        ArrowUp: this.#chosen + 1,
        PageDown: this.#chosen - page,
        PageUp: this.#chosen + page,
        Home: 0,
        End: last,
      }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      go(to);
    });
    this.#slider.addEventListener("pointerdown", (event) => go(this.#at(event)));
    this.#slider.addEventListener("pointermove", (event) => this.#choose(this.#at(event)));
    new ResizeObserver(() => this.#draw()).observe(this.#slider);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
  }

  /**
   * @param {{start: number, stop: number, probabilities: Float32Array}[]} windows in order, times in seconds
   * @param {{label: string, index: number, highest: number}[]} classes
   */
  show(windows, classes) {
    this.#windows = windows;
    this.#rows = classes.toSorted((a, b) => b.highest - a.highest).slice(0, ROWS);
    this.#names.replaceChildren(
      ...this.#rows.map(({ label }) => Object.assign(document.createElement("div"), { textContent: label, title: label })),
    );
    this.#choose(Math.min(this.#chosen, windows.length - 1));
  }

  /** Where the player is, in seconds. */
  follow(seconds) {
    this.#choose(this.#nearest(seconds));
  }

  restart() {
    this.#chosen = 0;
  }

  get #seconds() {
    return this.#windows.at(-1)?.stop ?? 0;
  }

  #at({ clientX }) {
    const { left, width } = this.#slider.getBoundingClientRect();
    return this.#nearest(((clientX - left) / width) * this.#seconds);
  }

  /** The window whose middle is nearest. */
  #nearest(seconds) {
    const after = this.#windows.findIndex((_, index) => this.#edge(index + 1) > seconds);
    return after < 0 ? this.#windows.length - 1 : after;
  }

  /** Where a window's part of the timeline begins: half way between its middle and the one before. */
  #edge(index) {
    if (index === 0) return 0;
    if (index >= this.#windows.length) return this.#seconds;
    const middle = ({ start, stop }) => (start + stop) / 2;
    return (middle(this.#windows[index - 1]) + middle(this.#windows[index])) / 2;
  }

  #choose(index) {
    if (!this.#windows.length) return;
    this.#chosen = Math.min(Math.max(index, 0), this.#windows.length - 1);
    const { start, stop, probabilities } = this.#windows[this.#chosen];
    const best = this.#rows.toSorted((a, b) => probabilities[b.index] - probabilities[a.index]).slice(0, 3);
    const named = best.map(({ label, index: of }) => `${label} ${percent(probabilities[of])}`).join(", ");
    const reading = `${time(start)} to ${time(stop)}: ${named}`;
    this.#reading.textContent = reading;
    const values = { min: 0, max: this.#windows.length - 1, now: this.#chosen, text: reading };
    for (const [name, value] of Object.entries(values)) this.#slider.setAttribute(`aria-value${name}`, value);
    this.#draw();
  }

  #draw() {
    const width = this.#slider.clientWidth;
    if (!width || !this.#windows.length) return;
    const height = this.#rows.length * ROW + AXIS;
    const scale = devicePixelRatio;
    Object.assign(this.#canvas, { width: width * scale, height: height * scale });
    this.#canvas.style.aspectRatio = `${width} / ${height}`;
    const pen = this.#canvas.getContext("2d");
    pen.scale(scale, scale);
    const colours = getComputedStyle(document.documentElement);
    const colour = (name) => colours.getPropertyValue(`--${name}`);
    const x = (seconds) => (seconds / this.#seconds) * width;

    this.#rows.forEach(({ index }, row) => {
      pen.globalAlpha = 0.4;
      pen.fillStyle = colour("line");
      pen.fillRect(0, row * ROW + 2, width, ROW - 4);
      pen.fillStyle = colour("accent");
      this.#windows.forEach(({ probabilities }, at) => {
        pen.globalAlpha = probabilities[index];
        pen.fillRect(x(this.#edge(at)), row * ROW + 2, x(this.#edge(at + 1)) - x(this.#edge(at)), ROW - 4);
      });
    });
    pen.globalAlpha = 1;

    pen.strokeStyle = colour("ink");
    pen.lineWidth = 2;
    const left = x(this.#edge(this.#chosen));
    const right = x(this.#edge(this.#chosen + 1));
    pen.strokeRect(left + 1, 1, Math.max(right - left - 2, 1), this.#rows.length * ROW - 2);

    pen.fillStyle = colour("quiet");
    pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
    pen.textBaseline = "bottom";
    const ticks = Math.max(Math.min(Math.floor(width / 110), 8), 1);
    for (let tick = 0; tick <= ticks; tick++) {
      pen.textAlign = tick === 0 ? "left" : tick === ticks ? "right" : "center";
      pen.fillText(time((tick / ticks) * this.#seconds), (tick / ticks) * width, height);
    }
  }
}
