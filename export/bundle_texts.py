"""What a bundle says: texts with $names to fill in (`string.Template`)."""

README = """\
# $name: $classes classes of sound

`model.onnx` reads waveforms as `waveform` `[batch, samples]`: float32 between -1 and 1, mono, $rate Hz, any batch and
length. It gives `logits` and `probabilities` `[batch, $classes]`. The front end is inside, and looks at the first
$seconds s of a clip. Clips in one batch have one length: do not pad them. `labels.txt` names the classes in order, and
so do the file's metadata (`labels`, `sample_rate`, ...). Made by fastloaa $version in $precision; it needs onnxruntime
1.23 or newer, and no Python at all.

## Python

`pip install onnxruntime numpy soundfile`, then `python classify.py clip.wav`; that file is:

```python
$python```

## C++

With the headers and the library of an [onnxruntime release](https://github.com/microsoft/onnxruntime/releases) in
`$$ORT`:

```
g++ -std=c++17 classify.cpp -I$$ORT/include -L$$ORT/lib -lonnxruntime -o classify
ffmpeg -v error -i clip.wav -ac 1 -ar $rate -f f32le - | ./classify model.onnx labels.txt
```

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
import json
import sys

import numpy as np
import onnxruntime
import soundfile

# With onnxruntime-gpu: providers=[("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider"]
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map
labels, rate = json.loads(about["labels"]), int(about["sample_rate"])

for path in sys.argv[1:]:
    samples, found = soundfile.read(path, dtype="float32", always_2d=True)
    if found != rate:
        sys.exit(f"{path} has {found} Hz, expected {rate}: ffmpeg -i {path} -ar {rate} resampled.wav")
    waveform = samples.mean(axis=1)[np.newaxis]  # [batch, samples]
    probabilities = session.run(["probabilities"], {"waveform": waveform})[0][0]
    for best in probabilities.argsort()[::-1][:3]:
        print(f"{path}\\t{labels[best]}\\t{probabilities[best]:.4f}")
"""

CPP = """\
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

// classify MODEL LABELS < samples: mono float32 at $rate Hz
int main(int argc, char** argv) {
    if (argc != 3) return std::cerr << "usage: classify model.onnx labels.txt < samples.f32\\n", 2;
    std::vector<std::string> labels;
    std::ifstream names(argv[2]);
    for (std::string line; std::getline(names, line);) labels.push_back(line);

    std::vector<float> samples;
    for (float sample; std::cin.read(reinterpret_cast<char*>(&sample), sizeof sample);) samples.push_back(sample);

    Ort::Env env;
    Ort::Session session(env, argv[1], Ort::SessionOptions{});
    std::array<int64_t, 2> shape{1, static_cast<int64_t>(samples.size())};
    auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    auto input = Ort::Value::CreateTensor<float>(memory, samples.data(), samples.size(), shape.data(), shape.size());
    const char *inputs[] = {"waveform"}, *outputs[] = {"probabilities"};
    auto answers = session.Run(Ort::RunOptions{nullptr}, inputs, &input, 1, outputs, 1);

    const float* probabilities = answers[0].GetTensorData<float>();
    auto best = std::max_element(probabilities, probabilities + labels.size()) - probabilities;
    std::cout << labels[best] << "\\t" << probabilities[best] << "\\n";
}
"""

CURL = """\
samples=$$(ffmpeg -v error -i clip.wav -ac 1 -ar $rate -f f32le - | od -An -v -tf4 -w4 | paste -sd,)
printf '{"inputs": [{"name": "waveform", "shape": [1, %d], "datatype": "FP32", "data": [%s]}],
"outputs": [{"name": "probabilities", "parameters": {"classification": 3}}]}' \\
    "$$(tr ',' '\\n' <<< "$$samples" | wc -l)" "$$samples" > request.json
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
