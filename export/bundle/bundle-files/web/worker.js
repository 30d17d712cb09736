// The model, in a thread of its own: the page stays responsive while it listens.
import * as ort from "./onnxruntime/ort.wasm.bundle.min.mjs";
import { answered } from "./windows.js";

ort.env.wasm.numThreads = 1; // threads would need headers that a plain file server does not send
ort.env.wasm.wasmPaths = { wasm: new URL("onnxruntime/ort-wasm-simd-threaded.wasm", import.meta.url).href };

const session = fetched(new URL("../model.onnx", import.meta.url))
  .then((model) => ort.InferenceSession.create(model, { executionProviders: ["wasm"] }))
  .then((created) => (postMessage({ ready: true }), created));
session.catch((error) => postMessage({ failed: error.message }));

/** A file's bytes; how many have come is told on the way. */
async function fetched(url) {
  const response = await fetch(url, { cache: "no-cache" }); // a bundle may be written anew
  if (!response.ok) throw new Error(`model.onnx: ${response.status} ${response.statusText}`);
  const total = Number(response.headers.get("Content-Length"));
  const parts = [];
  let loaded = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) return new Uint8Array(await new Blob(parts).arrayBuffer());
    parts.push(value);
    loaded += value.length;
    postMessage({ loaded, total });
  }
}

onmessage = async ({ data: { id, samples } }) => {
  try {
    const waveform = new ort.Tensor("float32", samples, [1, samples.length]); // [batch, samples]
    const { probabilities } = await (await session).run({ waveform }, ["probabilities"]);
    postMessage({ id, probabilities: answered(probabilities.data) });
  } catch (error) {
    postMessage({ id, error: error.message });
  }
};
