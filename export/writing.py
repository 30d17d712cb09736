"""ONNX graphs without their weights, and their files, written weight by weight.

Protobuf's own way, one message and then one string of bytes, has all of them in memory two more times.
"""

from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from fastloaa.extras import optional

LARGE = 1024  # elements: smaller tensors may say what shape others have
LONGEST = 2**31 - 1  # bytes that protobuf reads

# The beginnings of what is written here by hand: the numbers of fields in onnx.proto, and that a length follows.
_GRAPH, _INITIALIZER, _RAW_DATA = (bytes([number << 3 | 2]) for number in (7, 5, 9))


def take_weights(model: Any) -> dict[str, Any]:
    """Take the large initializers out of an `onnx_ir.Model`; returns them by their names, `onnx_ir.TensorProtocol`."""
    values = [value for value in model.graph.initializers.values() if value.const_value.size > LARGE]
    for value in values:
        del model.graph.initializers[value.name]
    return {value.name: value.const_value for value in values}


def with_inputs(model: Any, weights: Iterable[tuple[str, int, Iterable[int]]]) -> Any:
    """A copy of a `ModelProto` without its weights that is valid: they are inputs, (name, type, shape) each."""
    onnx = optional("onnx")
    result = onnx.ModelProto()
    result.CopyFrom(model)
    result.graph.input.extend(onnx.helper.make_tensor_value_info(*weight) for weight in weights)
    return result


def without_weights(model: Any) -> Any:
    """A valid `ModelProto` with inputs in the place of the large initializers of one, which is used up."""
    tensors = list(model.graph.initializer)
    del model.graph.initializer[:]
    large = [tensor for tensor in tensors if prod(tensor.dims) > LARGE]
    model.graph.initializer.extend(tensor for tensor in tensors if prod(tensor.dims) <= LARGE)
    return with_inputs(model, [(tensor.name, tensor.data_type, tensor.dims) for tensor in large])


def write_model(model: Any, weights: Mapping[str, Any], path: Path) -> None:
    """Write a `ModelProto` with initializers that it has not yet.

    Args:
        weights: `onnx_ir.TensorProtocol` each.

    Raises:
        ValueError: it is longer than protobuf reads.
    """
    onnx = optional("onnx")
    entries = []
    for name, tensor in weights.items():
        header = onnx.TensorProto(name=name, data_type=tensor.dtype, dims=tensor.shape.numpy()).SerializeToString()
        header += _RAW_DATA + _varint(tensor.nbytes)
        entries.append((_INITIALIZER + _varint(len(header) + tensor.nbytes) + header, tensor))
    graph = model.graph.SerializeToString()
    length = len(graph) + sum(len(header) + tensor.nbytes for header, tensor in entries)
    rest = onnx.ModelProto()
    rest.CopyFrom(model)
    rest.ClearField("graph")
    start = rest.SerializeToString() + _GRAPH + _varint(length)
    if len(start) + length > LONGEST:
        raise ValueError(f"it takes {len(start) + length:,} bytes, more than the {LONGEST:,} that ONNX's readers take")
    with path.open("wb") as file:
        file.write(start + graph)
        for header, tensor in entries:
            file.write(header)
            array = np.ascontiguousarray(tensor.numpy())
            file.write(array.astype(array.dtype.newbyteorder("<"), copy=False).data)


def _varint(number: int) -> bytes:
    """Protobuf's: seven bits a byte, the lowest first, and the eighth says that more follow."""
    groups = [number >> shift & 127 for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes([*(group | 128 for group in groups[:-1]), groups[-1]])
