"""What a bundle says: texts with $names to fill in (`string.Template`)."""

README = """\
# $name: $classes classes of sound

`model.onnx` reads waveforms as `waveform` `[batch, samples]`: float32 between -1 and 1, mono, $rate Hz, any batch and
length. Clips in one batch have one length: do not pad them. The front end is inside, and hears the first $window
samples ($seconds s) of a clip: `samples` in the file's metadata. A clip without samples, or with NaN or infinite ones,
gives NaN.

It gives `logits` and `probabilities` `[batch, $classes]`, the $probabilities of the logits.$several
`labels.txt` names the classes in order, and so does the metadata (`labels`, `sample_rate`, ...).

Made by fastloaa $version in $precision; it needs onnxruntime $needs or newer, and no Python at all.

## Python

`pip install onnxruntime numpy soundfile`, then `python classify.py clip.wav`. What cannot be used is named, and of what
is longer than the window it says how much was heard. That file is:

```python
$python```

## C++

With the headers and the library of an [onnxruntime release](https://github.com/microsoft/onnxruntime/releases) in
`$$ORT`:

```
g++ -std=c++17 classify.cpp -I$$ORT/include -L$$ORT/lib -lonnxruntime -o classify
ffmpeg -v error -xerror -y -i clip.wav -ac 1 -ar $rate -f f32le clip.f32 && ./classify model.onnx labels.txt < clip.f32
```

ffmpeg takes a wav that was cut for a shorter one; classify.py does not.

```cpp
$cpp```

## A server

`triton/` is a model repository of NVIDIA Triton Inference Server (its onnxruntime backend). It batches requests that
come together and have clips of one length.

```
docker run --rm -p 8000:8000 -v "$$PWD/triton:/models" nvcr.io/nvidia/tritonserver:<version>-py3 \\
    tritonserver --model-repository=/models
```

```bash
$curl```
"""

PYTHON = """\
import io
import json
import os
import pathlib
import re
import sys

import numpy as np
import onnxruntime
import soundfile

# With onnxruntime-gpu: providers=[("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider"]
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map
labels, rate, window = json.loads(about["labels"]), int(about["sample_rate"]), int(about["samples"])
several = about.get("multi_label") == "true"  # labels to a clip
sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be of any bytes


class Sound(soundfile.SoundFile):
    \"""Read forwards: some codecs cannot seek, and some headers do not know how long the sound is.\"""

    def seekable(self):
        return False


def chunks(wav, at):
    \"""Position, name and size of the chunks from a position on.\"""
    while at + 8 <= len(wav):
        size = int.from_bytes(wav[at + 4 : at + 8], "little")
        yield at, wav[at : at + 4], size
        at += 8 + size + size % 2


def finished(path):
    \"""The file; of a wav whose recorder was cut off before it wrote how much there is, with that filled in.\"""
    if not pathlib.Path(path).is_file():
        raise ValueError("no such file, or a folder or device; expected a sound file")
    wav = pathlib.Path(path).read_bytes()
    is_wav = wav[:4] == b"RIFF" and wav[8:12] == b"WAVE"
    at, _, size = next((chunk for chunk in chunks(wav, 12) if chunk[1] == b"data"), (len(wav), b"", 0))
    rest = len(wav) - at - 8
    if not is_wav or size >= rest or size and any(wav[4:8]):
        return os.fsencode(path)
    behind = list(chunks(wav, at + 8 + size + size % 2))
    if behind and all(name.isascii() and name.decode().isprintable() for _, name, _ in behind):
        last, name, length = behind[-1]
        if len(wav) - last - 8 in (length, length + 1):  # other chunks, so there are no samples
            return os.fsencode(path)
    return io.BytesIO(wav[: at + 4] + min(rest, 0xFFFFFFFF).to_bytes(4, "little") + wav[at + 8 :])


def read(path):
    \"""Samples of a file, mono; ValueError says why they cannot be used.\"""
    with Sound(finished(path)) as sound:
        blocks = [np.zeros((0, sound.channels), np.float32)]
        while len(block := sound.read(1 << 16, dtype="float32", always_2d=True)):
            blocks.append(block)
        samples = np.concatenate(blocks).mean(axis=1)
        # libsndfile shortens a cut wav without an error; its log says what the header promised (more: a stream).
        cut = re.search(r"(?:data|SSND)\\s*: (\\d+) \\(should be (\\d+)\\)", sound.extra_info)
        missing = len(samples) < sound.frames < 1 << 62 and sound.format != "MP3"
        if cut and int(cut[2]) < int(cut[1]) < 0x7FFF0000 or missing:
            raise ValueError("truncated; copy it again")
        if sound.samplerate != rate:
            raise ValueError(f"has {sound.samplerate} Hz, expected {rate}: ffmpeg -i {path} -ar {rate} resampled.wav")
    if not len(samples):
        raise ValueError("holds no samples")
    if not np.isfinite(samples).all():
        raise ValueError("holds NaN or infinite samples")
    return samples


broken = 0
for path in sys.argv[1:]:
    try:
        waveform = read(path)[np.newaxis]  # [batch, samples]
    except (OSError, RuntimeError, ValueError, TypeError, MemoryError) as error:  # soundfile's are RuntimeErrors
        print(f"{path}: {error}", file=sys.stderr)
        broken += 1
        continue
    if waveform.size > window:
        print(f"{path}: heard the first {window / rate:.2f} of {waveform.size / rate:.2f} s", file=sys.stderr)
    probabilities = session.run(["probabilities"], {"waveform": waveform[:, :window]})[0][0]
    for best in probabilities.argsort()[::-1][: None if several else 3]:
        if not several or probabilities[best] >= $threshold:
            print(f"{path}\\t{labels[best]}\\t{probabilities[best]:.4f}")
sys.exit(broken > 0)
"""

CPP = """\
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

int refuse(const std::string& reason) { return std::cerr << "classify: " << reason << "\\n", 1; }

// classify MODEL LABELS < samples: mono float32 at $rate Hz
int main(int argc, char** argv) try {
    if (argc != 3) return refuse("usage: classify model.onnx labels.txt < samples.f32");
    std::vector<std::string> labels;
    std::ifstream names(argv[2]);
    for (std::string line; std::getline(names, line);) labels.push_back(line);

    std::vector<float> samples;
    for (float sample; std::cin.read(reinterpret_cast<char*>(&sample), sizeof sample);) samples.push_back(sample);
    if (std::cin.gcount()) return refuse("truncated, the input ends within a sample");
    if (samples.empty()) return refuse("the input holds no samples");
    for (float sample : samples)
        if (!std::isfinite(sample)) return refuse("the input holds NaN or infinite samples");
    if (samples.size() > $window)
        std::cerr << "classify: heard the first " << $window / $rate. << " of " << samples.size() / $rate. << " s\\n";

    Ort::Env env;
    Ort::Session session(env, argv[1], Ort::SessionOptions{});
    std::array<int64_t, 2> shape{1, static_cast<int64_t>(samples.size())};
    auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    auto input = Ort::Value::CreateTensor<float>(memory, samples.data(), samples.size(), shape.data(), shape.size());
    const char *inputs[] = {"waveform"}, *outputs[] = {"probabilities"};
    auto answers = session.Run(Ort::RunOptions{nullptr}, inputs, &input, 1, outputs, 1);
    if (answers[0].GetTensorTypeAndShapeInfo().GetElementCount() != labels.size())
        return refuse(std::string(argv[2]) + " does not name the model's classes");

    const float* probabilities = answers[0].GetTensorData<float>();
    const float least = $least;  // of a label that is named
    for (size_t i = 0; i < labels.size(); ++i)
        if (probabilities[i] >= least) std::cout << labels[i] << "\\t" << probabilities[i] << "\\n";
} catch (const Ort::Exception& error) {
    return refuse(error.what());
}
"""

CURL = """\
ffmpeg -v error -xerror -y -i clip.wav -ac 1 -ar $rate -f f32le clip.f32 && test -s clip.f32 &&
samples=$$(od -An -v -tf4 -w4 clip.f32 | paste -sd,) && [[ $$samples != *n* ]] &&  # no nan, no inf
printf '{"inputs": [{"name": "waveform", "shape": [1, %d], "datatype": "FP32", "data": [%s]}],
"outputs": [{"name": "probabilities", "parameters": {"classification": 3}}]}' \\
    "$$(tr ',' '\\n' <<< "$$samples" | wc -l)" "$$samples" > request.json &&
curl -s localhost:8000/v2/models/$name/infer -d @request.json  # "probability:index:label", best first
"""

TRITON = """\
name: "$name"
backend: "onnxruntime"
max_batch_size: 32
input [ { name: "waveform" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [
  { name: "logits" data_type: TYPE_FP32 dims: [ $classes ] },
  { name: "probabilities" data_type: TYPE_FP32 dims: [ $classes ] label_filename: "labels.txt" }
]
# Requests share a batch only if their clips have one length, as the model wants it.
dynamic_batching { max_queue_delay_microseconds: 2000 }
"""
