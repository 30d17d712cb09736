"""What bench/runtimes.py asks of a runtime in a virtual environment of its own: numpy and that runtime, nothing else.

A JSON object a line comes in, and one goes out: {"load": path} opens a file, {"run": path, "shape": [batch, samples]}
gives the logits of raw float32 samples, {"time": calls} the milliseconds of the processor for the fastest of some calls
of the last run.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Run = Callable[[Any], Any]


def onnxruntime_session(path: str) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(["logits"], {name: x})[0]


def openvino_model(path: str) -> Run:
    import openvino

    # Without the hint CPUs that have bfloat16 compute in it.
    config = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(path, "CPU", config)
    return lambda x: model([x])[model.output("logits")]


def main() -> None:
    load = {"onnxruntime": onnxruntime_session, "openvino": openvino_model}[sys.argv[1]]
    x = np.zeros((1, 1), np.float32)
    run: Run = lambda _: None  # noqa: E731
    for line in sys.stdin:
        command = json.loads(line)
        try:
            if "load" in command:
                run, answer = load(command["load"]), {}
            elif "run" in command:
                x = np.fromfile(command["run"], np.float32).reshape(command["shape"])
                answer = {"logits": np.asarray(run(x), np.float64).tolist()}
            else:
                samples = []
                for _ in range(command["time"]):
                    begin = time.process_time()
                    run(x)
                    samples.append(1e3 * (time.process_time() - begin))
                answer = {"ms": min(samples)}
        except Exception as error:  # of any runtime; the table says which
            answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
