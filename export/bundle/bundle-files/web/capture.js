// Runs beside the audio device: hands on what the microphone hears, channels averaged.

class Capture extends AudioWorkletProcessor {
  #samples = new Float32Array(4096);
  #count = 0;

  process([channels]) {
    for (let index = 0; index < (channels[0]?.length ?? 0); index++) {
      const sum = channels.reduce((total, channel) => total + channel[index], 0);
      this.#samples[this.#count++] = sum / channels.length;
      if (this.#count === this.#samples.length) {
        this.port.postMessage(this.#samples.slice());
        this.#count = 0;
      }
    }
    return true;
  }
}

registerProcessor("capture", Capture);
