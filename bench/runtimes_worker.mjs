// The same as runtimes_worker.py, of onnxruntime-web in Node.js; run in a folder where npm has installed it.
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const ort = createRequire(`${process.cwd()}/`)("onnxruntime-web");
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "fatal";
let session, feed;

async function answer(command) {
  if (command.load) {
    session = await ort.InferenceSession.create(await readFile(command.load), { executionProviders: ["wasm"] });
    return {};
  }
  if (command.run) {
    const bytes = await readFile(command.run);
    const samples = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
    feed = { [session.inputNames[0]]: new ort.Tensor("float32", samples.slice(), command.shape) };
    const { logits } = await session.run(feed);
    const classes = logits.dims[1];
    const rows = Array.from({ length: logits.dims[0] }, (_, i) => [...logits.data.slice(i * classes, (i + 1) * classes)]);
    return { logits: rows };
  }
  const samples = [];
  for (let call = 0; call < command.time; call++) {
    const begin = process.cpuUsage();
    await session.run(feed);
    const { user, system } = process.cpuUsage(begin); // microseconds
    samples.push((user + system) / 1e3);
  }
  return { ms: Math.min(...samples) };
}

for await (const line of createInterface({ input: process.stdin })) {
  const said = await answer(JSON.parse(line)).catch((error) => ({ error: `${error}`.replace(/\s+/g, " ").slice(0, 300) }));
  console.log(JSON.stringify(said));
}
