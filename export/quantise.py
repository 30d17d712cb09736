"""int8: onnxruntime's static quantisation, calibrated on recordings."""

from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloaa.export.onnx_file import optional

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
    source: Path, target: Path, inputs: Sequence[Array], percentile: float = 99.999, reduce_range: bool = True
) -> None:
    """Write the file `source` with the products of its transformer blocks in 8 bits.

    Weights are int8 from -64 to 64 with a scale for each output, activations uint8 in the range that `percentile` per
    cent of their values take on the recordings. Front end, patches, norms, softmax, sums and the head stay float32.
    Standard operators (QuantizeLinear, DequantizeLinear); onnxruntime makes integer products of them when it loads the
    file. Those are exact on every CPU: without VNNI two products are added in 16 bits, where 2 * 255 * 64 still fits.

    Args:
        inputs: what the graph reads, a recording each.
        reduce_range: False: weights from -127 to 127, whose products saturate on CPUs without VNNI; to compare with.
    """
    onnx, quantization = optional("onnx"), optional("onnxruntime.quantization")
    model = onnx.load(source)
    products = [node.name for node in model.graph.node if node.op_type == "MatMul" and ".blocks." in node.name]
    props = {prop.key: prop.value for prop in model.metadata_props}
    options: dict[str, Any] = {
        "MatMulConstBOnly": True,
        "OpTypesToExcludeOutputQuantization": ["MatMul"],  # what goes into a norm or a sum keeps its range
        "CalibTensorRangeSymmetric": False,
        "CalibPercentile": percentile,
        "CalibStridedMinMax": 1,  # for histograms too: one recording's activations in memory at a time
    }
    with TemporaryDirectory() as folder, redirect_stdout(StringIO()):  # it prints its progress for each recording
        prepared = Path(folder) / "prepared.onnx"
        quantization.shape_inference.quant_pre_process(
            source, prepared, skip_optimization=True, skip_symbolic_shape=True
        )
        quantization.quantize_static(
            prepared,
            target,
            Recordings(model.graph.input[0].name, inputs),
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=products,
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.Percentile,
            extra_options=options,
        )
    model = onnx.load(target)
    onnx.helper.set_model_props(model, props)  # without the notes that the tools leave for each other
    onnx.save(model, target)
