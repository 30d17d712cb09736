"""Files like those that `to_onnx` writes, made in a moment: a small graph that listens, and all that a file says."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fastloaa.export.onnx_file import Metadata


def write_listener(
    path: Path,
    labels: tuple[str, ...],
    seed: int = 0,
    samples: int = 8000,
    multi_label: bool = False,
    shortest: int | None = None,
) -> Path:
    """A model of the samples' mean, mean square, largest and smallest value; waveforms of 16 kHz, any length.

    Args:
        seed: other models have other weights.
        samples: its window.
        shortest: what its metadata say; None: nothing, as of older files.
    """
    weights = np.random.default_rng(seed).normal(0, 2, (4, len(labels))).astype(np.float32)
    reduce = {"mean": "ReduceMean", "largest": "ReduceMax", "smallest": "ReduceMin"}
    nodes = [
        *(helper.make_node(op, ["waveform", "axes"], [name], keepdims=1) for name, op in reduce.items()),
        helper.make_node("Mul", ["waveform", "waveform"], ["square"]),
        helper.make_node("ReduceMean", ["square", "axes"], ["power"], keepdims=1),
        helper.make_node("Concat", ["mean", "power", "largest", "smallest"], ["features"], axis=1),
        helper.make_node("MatMul", ["features", "weights"], ["logits"]),
        helper.make_node("Sigmoid" if multi_label else "Softmax", ["logits"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes,
        "listener",
        [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", "samples"])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", len(labels)])
            for name in ("logits", "probabilities")
        ],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.array([1]), "axes")],
    )
    metadata = Metadata(
        fastloaa="0", task="audio-classification", input="waveform", precision="fp32", labels=labels, opset=18,
        front_end_kind="ast", sample_rate=16000, frames=50, mel_bins=128, mean=0.0, std=1.0, samples=samples,
        shortest=shortest, probabilities="sigmoid" if multi_label else "softmax", multi_label=multi_label,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, metadata.to_props())
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
