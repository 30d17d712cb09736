// What the model hears in samples from standard input: mono, 32-bit floats between -1 and 1, at the model's rate.
// node classify.mjs < clip.f32; a page imports the same three modules, see web/worker.js.
import { readFile } from "node:fs/promises";
import { buffer } from "node:stream/consumers";

import * as ort from "./web/onnxruntime/ort.wasm.bundle.min.mjs";
import { answered, checked, windows } from "./web/windows.js";

process.on("uncaughtException", ({ message }) => {
  console.error(`classify: ${message}`);
  process.exit(1);
});
const here = (name) => new URL(name, import.meta.url);
const about = JSON.parse(await readFile(here("model.json"), "utf8"));
const bytes = await buffer(process.stdin);
if (bytes.length % 4) throw new Error("truncated, the input ends within a sample");
const samples = new Float32Array(new Uint8Array(bytes).buffer);
const heard = windows(checked(samples, about).length, about);

ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmBinary = await readFile(here("web/onnxruntime/ort-wasm-simd-threaded.wasm"));
const session = await ort.InferenceSession.create(await readFile(here("model.onnx")));
const mean = new Float64Array(about.labels.length);
for (const { start, stop } of heard) {
  const window = samples.slice(start, stop);
  const waveform = new ort.Tensor("float32", window, [1, window.length]); // [batch, samples]
  const { probabilities } = await session.run({ waveform }, ["probabilities"]);
  answered(probabilities.data).forEach((probability, index) => (mean[index] += probability / heard.length));
}
const best = [...mean.keys()].sort((a, b) => mean[b] - mean[a]);
const named = about.multi_label ? best.filter((index) => mean[index] >= about.threshold) : best.slice(0, about.top);
for (const index of named) console.log(`${about.labels[index]}\t${mean[index].toFixed(4)}`);
