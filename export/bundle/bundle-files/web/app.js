// The page: from a file or the microphone to an answer, a timeline and numbers.
import { Microphone, Recording, decoded, resampled } from "./audio.js";
import { Classifier } from "./classifier.js";
import { Numbers, asCsv, pooled } from "./numbers.js";
import { Timeline } from "./timeline.js";
import { checked, windows } from "./windows.js";
import { percent, seconds, time } from "./words.js";

const element = (id) => document.getElementById(id);
const WORKING = -1; // for how long is not known
const player = element("player");
const numbers = new Numbers();
const timeline = new Timeline((start) => (player.currentTime = start));

let about; // the model, from model.json
let classifier;
let heard = []; // windows of the recording that is shown
let turn = 0; // counts recordings: a new one ends the one before
let recording; // while the microphone is on

/** What is going on, which screen readers read out; WORKING while it lasts. */
function say(text, share) {
  element("status").textContent = text;
  progress("", share);
}

/** How far it is, which they do not. */
function progress(text, share) {
  element("position").textContent = text;
  element("progress").hidden = share === undefined;
  if (share >= 0) element("progress").value = share;
  else element("progress").removeAttribute("value");
}

function complain(error) {
  say("");
  element("error").textContent = error?.message ?? "";
  element("error").hidden = !error;
}

/** An empty result for a recording of this name, and whether it is still the one that is shown. */
function begin(name) {
  const mine = ++turn;
  complain();
  heard = [];
  timeline.restart();
  element("result").hidden = true;
  element("source").textContent = name;
  player.pause();
  player.hidden = true;
  if (player.src) URL.revokeObjectURL(player.src);
  player.removeAttribute("src");
  return () => mine === turn;
}

async function hear(samples, start) {
  const probabilities = await classifier.probabilities(samples);
  return { start: start / about.sample_rate, stop: (start + samples.length) / about.sample_rate, probabilities };
}

function show() {
  const classes = pooled(heard, about.labels);
  const named = about.multi_label ? classes.filter(({ mean }) => mean >= about.threshold) : classes.slice(0, 1);
  element("answer").textContent = named.map(({ label }) => label).join(", ") || "Nothing that it knows";
  element("answer-note").textContent = named.map(({ mean }) => percent(mean)).join(", ");
  const several = heard.length > 1;
  element("numbers-caption").textContent = several
    ? `Probabilities, the mean and the highest of ${heard.length} windows of ${seconds(about.window / about.sample_rate)}.`
    : "Probabilities; the recording is one window.";
  element("result").hidden = false;
  numbers.show(classes);
  timeline.show(heard, classes);
}

async function listenToFile(file) {
  const current = begin(file.name);
  try {
    say(`Reading ${file.name}`, WORKING);
    const samples = checked(await decoded(await file.arrayBuffer(), about.sample_rate), about);
    if (!current()) return;
    const parts = windows(samples.length, about);
    const length = time(samples.length / about.sample_rate);
    say("Waiting for the model", WORKING);
    await classifier.ready;
    if (current()) say(`Listening to ${length}`, 0);
    let shown = performance.now();
    for (const [index, { start, stop }] of parts.entries()) {
      const window = await hear(samples.slice(start, stop), start);
      if (!current()) return;
      heard.push(window);
      progress(`${time(window.stop)} heard`, (index + 1) / parts.length);
      if (performance.now() - shown > 500) {
        show();
        shown = performance.now();
      }
    }
    show();
    player.src = URL.createObjectURL(file);
    player.hidden = false;
    say(`Done: ${length} heard.`);
  } catch (error) {
    if (current()) complain(new Error(`${file.name}: ${error.message}`));
  }
}

/** Windows are heard as they fill; the last one ends with the recording, as in a file. */
async function listenToMicrophone() {
  const current = begin("Microphone");
  const sound = new Recording();
  let wake = () => {};
  let stopped = false;
  recording = {
    stop() {
      stopped = true;
      wake();
    },
  };
  say("Waiting for the microphone", WORKING);
  const microphone = await Microphone.open((samples) => {
    sound.push(samples);
    wake();
  });
  const { rate } = microphone;
  const native = (position) => Math.round((position * rate) / about.sample_rate);
  const taken = async (start, stop) => {
    const samples = await resampled(sound.slice(native(start), native(stop)), rate, about.sample_rate);
    return samples.slice(0, stop - start);
  };
  try {
    if (current()) say("Listening to the microphone", WORKING);
    for (let start = 0; current(); ) {
      progress(time(sound.length / rate), WORKING);
      if (sound.length >= native(start + about.window)) {
        heard.push(await hear(await taken(start, start + about.window), start));
        sound.forget(native(start)); // the last window may begin anywhere behind
        start += about.hop;
        if (current()) show();
      } else if (stopped) {
        break;
      } else {
        await new Promise((resolve) => (wake = resolve));
      }
    }
    await microphone.close();
    if (!current()) return;
    const length = Math.floor((sound.length * about.sample_rate) / rate);
    const last = windows(length, about).at(-1);
    if (!heard.length || last.stop / about.sample_rate > heard.at(-1).stop) {
      heard.push(await hear(checked(await taken(last.start, last.stop), about), last.start));
    }
    if (!current()) return;
    show();
    say(`Done: ${time(length / about.sample_rate)} heard.`);
  } finally {
    await microphone.close().catch(() => {});
  }
}

async function toggleMicrophone() {
  if (recording) return recording.stop();
  const button = element("microphone");
  button.classList.add("on");
  element("microphone-label").textContent = "Stop";
  try {
    await listenToMicrophone();
  } catch (error) {
    const refused = error.name === "NotAllowedError" || error.name === "NotFoundError";
    complain(refused ? new Error("There is no microphone that this page may use.") : error);
  }
  recording = undefined;
  button.classList.remove("on");
  element("microphone-label").textContent = "Use the microphone";
}

function takeFile(file) {
  recording?.stop();
  if (file) listenToFile(file);
}

function connect() {
  element("file").addEventListener("change", ({ target }) => {
    takeFile(target.files[0]);
    target.value = ""; // the same file may be chosen again
  });
  for (const type of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(type, (event) => {
      event.preventDefault();
      element("drop").classList.toggle("over", type === "dragover");
      if (type === "drop") takeFile(event.dataTransfer.files[0]);
    });
  }
  element("microphone").addEventListener("click", toggleMicrophone);
  element("microphone").disabled = !navigator.mediaDevices;
  if (!navigator.mediaDevices) element("microphone-label").textContent = "The microphone needs https or localhost";
  player.addEventListener("timeupdate", () => !player.paused && timeline.follow(player.currentTime));
  element("save").addEventListener("click", () => {
    const csv = new Blob([asCsv(heard, about.labels)], { type: "text/csv" });
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(csv), download: "windows.csv" });
    link.click();
    URL.revokeObjectURL(link.href);
  });
}

async function start() {
  say("Loading the model", WORKING);
  const response = await fetch("../model.json", { cache: "no-cache" }); // a bundle may be written anew;
  if (!response.ok) throw new Error("model.json is missing: serve the bundle's folder, not web/ alone.");
  about = await response.json();
  document.title = element("name").textContent = about.name;
  element("about").textContent = `Names ${about.labels.length} classes of sound, in windows of ${seconds(about.window / about.sample_rate)}.`;
  element("made").textContent = `Adapted by fastloaa ${about.fastloaa}, ${about.precision}; runs in onnxruntime-web.`;
  classifier = new Classifier((loaded, total) => {
    if (turn === 0) progress(`${(loaded / 1e6).toFixed(0)} MB`, total ? loaded / total : WORKING);
  });
  connect();
  await classifier.ready;
  if (turn === 0) say("Ready.");
}

element("unserved").remove();
start().catch(complain);
