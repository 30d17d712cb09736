// Which parts of a recording the model hears, and which recordings it does not.

/**
 * Windows a hop apart, and one that ends with the recording; of a short recording all of it.
 *
 * @param {number} samples of the recording, at the model's rate
 * @param {{window: number, hop: number}} about the model, both in samples
 * @returns {{start: number, stop: number}[]}
 */
export function windows(samples, { window, hop }) {
  const starts = [0];
  while (starts.at(-1) + window < samples) starts.push(Math.min(starts.at(-1) + hop, samples - window));
  return starts.map((start) => ({ start, stop: Math.min(start + window, samples) }));
}

/**
 * The samples, if the model can answer for them.
 *
 * @param {Float32Array} samples
 * @param {{shortest: number, sample_rate: number}} about the model
 * @throws {Error} says why not
 */
export function checked(samples, { shortest, sample_rate }) {
  if (!samples.length) throw new Error("The recording holds no samples.");
  if (!samples.every(Number.isFinite)) throw new Error("The recording holds samples that are not finite numbers.");
  if (samples.length < shortest) {
    throw new Error(`${samples.length} samples at ${sample_rate} Hz; the model looks at ${shortest} and more.`);
  }
  return samples;
}

/**
 * The probabilities, if they are numbers: of samples that are far too large they are not.
 *
 * @param {Float32Array} probabilities
 * @throws {Error} says what to do
 */
export function answered(probabilities) {
  if (probabilities.every(Number.isFinite)) return probabilities;
  throw new Error("The model's answer is not a number; divide the recording's samples by their full scale, to -1 to 1.");
}
