// Sound files and the microphone, to mono samples at the model's rate.

/**
 * @param {ArrayBuffer} content of a sound file that the browser decodes
 * @param {number} rate in Hz
 * @returns {Promise<Float32Array>} channels averaged
 * @throws {Error} says what is wrong with it
 */
export async function decoded(content, rate) {
  if (!content.byteLength) throw new Error("The file is empty.");
  if (isCut(new DataView(content))) throw new Error("The file is cut short; copy it again.");
  let sound;
  try {
    sound = await new OfflineAudioContext(1, 1, rate).decodeAudioData(content); // resamples
  } catch {
    throw new Error("This is no sound file that the browser can read, or it is damaged.");
  }
  return mono(sound);
}

/** Samples of one rate in Hz at another. */
export async function resampled(samples, from, to) {
  if (from === to) return samples;
  const context = new OfflineAudioContext(1, Math.max(Math.ceil((samples.length * to) / from), 1), to);
  const buffer = new AudioBuffer({ length: samples.length, sampleRate: from });
  buffer.copyToChannel(samples, 0);
  const source = new AudioBufferSourceNode(context, { buffer });
  source.connect(context.destination);
  source.start();
  return (await context.startRendering()).getChannelData(0);
}

function mono(sound) {
  const mean = sound.getChannelData(0).slice();
  for (let channel = 1; channel < sound.numberOfChannels; channel++) {
    sound.getChannelData(channel).forEach((sample, index) => (mean[index] += sample));
  }
  return sound.numberOfChannels > 1 ? mean.map((sum) => sum / sound.numberOfChannels) : mean;
}

/** Whether a wav promises more samples than it has: browsers would play what is left of it. */
function isCut(view) {
  const name = (at) => String.fromCharCode(...[0, 1, 2, 3].map((i) => view.getUint8(at + i)));
  if (view.byteLength < 12 || name(0) !== "RIFF" || name(8) !== "WAVE") return false;
  for (let at = 12; at + 8 <= view.byteLength; ) {
    const size = view.getUint32(at + 4, true);
    if (name(at) === "data") return size < 0x7fff0000 && size > view.byteLength - at - 8; // larger: a stream
    at += 8 + size + (size % 2);
  }
  return false;
}

/** Samples that come in pieces, and may be forgotten: a microphone goes on for hours. */
export class Recording {
  #samples = new Float32Array(1 << 16);
  #first = 0; // number of the first sample that is kept
  length = 0; // of all that came

  push(piece) {
    const kept = this.length - this.#first;
    if (kept + piece.length > this.#samples.length) {
      const larger = new Float32Array(2 * (kept + piece.length));
      larger.set(this.#samples);
      this.#samples = larger;
    }
    this.#samples.set(piece, kept);
    this.length += piece.length;
  }

  /** Samples from number `start` to before `stop`, as far as they are kept. */
  slice(start, stop) {
    const [from, to] = [start, Math.min(stop, this.length)].map((number) => Math.max(number - this.#first, 0));
    return this.#samples.slice(from, to);
  }

  /** Keep nothing before sample number `start`. */
  forget(start) {
    this.#samples.copyWithin(0, start - this.#first, this.length - this.#first);
    this.#first = start;
  }
}

/** The microphone, at the rate that it has. */
export class Microphone {
  /** @param {(samples: Float32Array) => void} heard is given each piece as it comes */
  static async open(heard) {
    const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false }; // made for speech
    const stream = await navigator.mediaDevices.getUserMedia({ audio: plain });
    const context = new AudioContext();
    await context.audioWorklet.addModule(new URL("capture.js", import.meta.url));
    const capture = new AudioWorkletNode(context, "capture", { numberOfOutputs: 0 });
    capture.port.onmessage = ({ data }) => heard(data);
    context.createMediaStreamSource(stream).connect(capture);
    return new Microphone(stream, context);
  }

  constructor(stream, context) {
    this.stream = stream;
    this.context = context;
    this.rate = context.sampleRate;
  }

  async close() {
    this.stream.getTracks().forEach((track) => track.stop());
    await this.context.close();
  }
}
