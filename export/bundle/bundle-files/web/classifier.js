// The model as the page uses it.

export class Classifier {
  #worker;
  #waiting = new Map();
  #asked = 0;

  /** @param {(loaded: number, total: number) => void} progress of the model's file, in bytes; total 0: unknown */
  constructor(progress = () => {}) {
    // A worker from a file has no content security policy, one from a blob has that of the page.
    const source = `import ${JSON.stringify(new URL("worker.js", import.meta.url).href)};`;
    const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    this.#worker = new Worker(url, { type: "module" });
    /** Resolves when the model can answer. */
    this.ready = new Promise((resolve, reject) => {
      this.#worker.onerror = () => reject(new Error("onnxruntime-web cannot be loaded; see README.md, In the browser."));
      this.#worker.onmessage = ({ data }) => {
        if (data.ready) resolve();
        else if (data.failed) reject(new Error(data.failed));
        else if (data.id === undefined) progress(data.loaded, data.total);
        else this.#answer(data);
      };
    });
  }

  /**
   * @param {Float32Array} samples of one window
   * @returns {Promise<Float32Array>} a probability for each class
   */
  async probabilities(samples) {
    await this.ready;
    return new Promise((resolve, reject) => {
      this.#waiting.set(++this.#asked, { resolve, reject });
      this.#worker.postMessage({ id: this.#asked, samples });
    });
  }

  #answer({ id, probabilities, error }) {
    const { resolve, reject } = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error) reject(new Error(error));
    else resolve(probabilities);
  }
}
