"""int8: onnxruntime's static quantisation, calibrated on recordings."""

from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloaa.extras import optional
from fastloaa.files import writing_temporary

Array = NDArray[np.float32]


class Recordings:
    """A `CalibrationDataReader` over inputs, and over parts of them: its histograms need not hold all at once.

    Args:
        name: of the graph's input.
        inputs: what is fed to it, one after the other.
    """

    def __init__(self, name: str, inputs: Sequence[Array]) -> None:
        self._name = name
        self._inputs = self._left = list(inputs)

    def __len__(self) -> int:
        return len(self._inputs)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Go on with a part of the inputs."""
        self._left = self._inputs[start_index:end_index]

    def get_next(self) -> dict[str, Array] | None:
        """The next input, None after the last."""
        head, self._left = self._left[:1], self._left[1:]
        return {self._name: head[0]} if head else None


def quantise(
    source: Path, target: Path, inputs: Sequence[Array], percentile: float = 99.999, saturating: bool = False
) -> None:
    """Write the file `source` with the products of its transformer blocks in 8 bits.

    Weights are int8 with a scale for each output, see `safe_ranges`; activations uint8 in the range that `percentile`
    per cent of their values take on the recordings. Front end, patches, norms, softmax, sums and the head stay float32.
    Standard operators (QuantizeLinear, DequantizeLinear); onnxruntime makes integer products of them when it loads the
    file, which are exact on every CPU.

    Args:
        inputs: what the graph reads, a recording each.
        saturating: weights over all of -127 to 127, whose products saturate on CPUs without VNNI; to compare with.

    Raises:
        WriteError: the folder for temporary files takes no more.
    """
    onnx, quantization = optional("onnx"), optional("onnxruntime.quantization")
    model = onnx.load(source)
    products = block_products(model)
    weights = {node.input[1] for node in products}
    props = {prop.key: prop.value for prop in model.metadata_props}
    options: dict[str, Any] = {
        "MatMulConstBOnly": True,
        "OpTypesToExcludeOutputQuantization": ["MatMul"],  # what goes into a norm or a sum keeps its range
        "CalibTensorRangeSymmetric": False,
        "CalibPercentile": percentile,
        "CalibStridedMinMax": 1,  # for histograms too: one recording's activations in memory at a time
    }
    if not saturating:
        options["TensorQuantOverrides"] = {
            tensor.name: [
                {"axis": 1, "rmin": -end, "rmax": end} for end in safe_ranges(onnx.numpy_helper.to_array(tensor))
            ]
            for tensor in model.graph.initializer
            if tensor.name in weights
        }
    # onnxruntime has files in the system's folder for temporary ones too. It prints its progress for each recording.
    with writing_temporary(), TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        prepared, quantised = Path(folder) / "prepared.onnx", Path(folder) / "quantised.onnx"
        quantization.shape_inference.quant_pre_process(
            source, prepared, skip_optimization=True, skip_symbolic_shape=True
        )
        quantization.quantize_static(
            prepared,
            quantised,
            Recordings(model.graph.input[0].name, inputs),
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=[node.name for node in products],
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.Percentile,
            extra_options=options,
        )
        model = onnx.load(quantised)
    onnx.helper.set_model_props(model, props)  # without the notes that the tools leave for each other
    onnx.save(model, target)


def block_products(model: Any) -> list[Any]:
    """The nodes of a `ModelProto` that multiply by a weight of its transformer blocks, x [..., in] by [in, out]."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [
        node
        for node in model.graph.node
        if node.op_type == "MatMul" and ".blocks." in node.name and node.input[1] in constants
    ]


def safe_ranges(weight: Array) -> Array:
    """The largest values that int8 stands for, for each output of a weight [in, out].

    CPUs without VNNI multiply bytes by vpmaddubsw, which adds the products of two neighbours of a row of activations
    in 16 bits. Activations reach 255, so two neighbouring weights of one sign may reach 128 together before a sum
    saturates. `reduce_range`, seven bits for all weights, would make sure of the same with steps up to twice as large.
    """
    largest = np.abs(weight).max(axis=0)
    if len(weight) < 2:
        return largest
    one_sign = np.signbit(weight[1:]) == np.signbit(weight[:-1])
    pairs = np.where(one_sign, np.abs(weight[1:] + weight[:-1]), 0).max(axis=0)
    return np.maximum(largest, pairs)  # in steps of a 127th: rounding takes a pair to 128 at most
