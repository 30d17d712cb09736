"""The bundle's model in Triton's Python backend, by whatever onnxruntime the server's Python has."""

import json
from itertools import groupby
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton

# TF32 keeps ten bits of a product, and answers would not be those that were checked.
GPU = ("CUDAExecutionProvider", {"use_tf32": "0"})


def refused(clips: list[np.ndarray], reason: str) -> list:
    return [triton.InferenceResponse(error=triton.TritonError(reason)) for _ in clips]


class TritonPythonModel:
    """See https://github.com/triton-inference-server/python_backend; one instance of the model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open `model.onnx` of the bundle that this repository stands in, on the instance's device."""
        bundle = Path(args["model_repository"]).parents[1]
        providers: list[str | tuple[str, dict[str, str]]] = ["CPUExecutionProvider"]
        if args["model_instance_kind"] == "GPU" and GPU[0] in onnxruntime.get_available_providers():
            providers.insert(0, (GPU[0], GPU[1] | {"device_id": args["model_instance_device_id"]}))
        self.session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=providers)
        about = json.loads((bundle / "model.json").read_text(encoding="utf-8"))
        self.shortest, self.rate = about["shortest"], about["sample_rate"]
        self.outputs = [port.name for port in self.session.get_outputs()]

    def execute(self, requests: list) -> list:
        """Answers in the order of the requests; clips of one length that follow each other in one run."""
        clips = [triton.get_input_tensor_by_name(request, "waveform").as_numpy() for request in requests]
        responses = []
        for samples, group in groupby(clips, key=lambda clip: clip.shape[1]):
            responses += self._answer(list(group), samples)
        return responses

    def _answer(self, clips: list[np.ndarray], samples: int) -> list:
        """Of requests `[batch, samples]` each, all of one length."""
        if samples < self.shortest:
            return refused(clips, f"{samples} samples at {self.rate} Hz; the model looks at {self.shortest} and more")
        try:
            answers = self.session.run(self.outputs, {"waveform": np.concatenate(clips)})
        except Exception as error:  # onnxruntime's have no common base; a batch's error is not the server's end
            return refused(clips, f"{type(error).__name__}: {error}")
        ends = np.cumsum([len(clip) for clip in clips])[:-1]
        parts = zip(*(np.split(answer, ends) for answer in answers), strict=True)
        return [
            triton.InferenceResponse([triton.Tensor(*named) for named in zip(self.outputs, part, strict=True)])
            for part in parts
        ]
