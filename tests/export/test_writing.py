"""Files that are written weight by weight are the ones that onnx writes."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fastloaa.export import ExportError, writing
from fastloaa.export.graph import Inference
from fastloaa.export.onnx import metadata_of, write_graph
from fastloaa.export.writing import take_weights, with_inputs, without_weights, write_model
from helpers.small import SMALL, small_ast


def graph_of(*weights: NDArray) -> onnx.ModelProto:
    """A sum of weights, with a small constant that says a shape."""
    names = [f"weight {number}" for number in range(len(weights))]
    nodes = [helper.make_node("Reshape", [name, "shape"], [f"{name}/flat"]) for name in names]
    nodes += [helper.make_node("ReduceSum", [f"{name}/flat"], [f"{name}/sum"], keepdims=0) for name in names]
    constants = [numpy_helper.from_array(array, name) for array, name in zip(weights, names, strict=True)]
    constants.append(numpy_helper.from_array(np.array([-1]), "shape"))
    outputs = [
        helper.make_tensor_value_info(f"{name}/sum", helper.np_dtype_to_tensor_dtype(array.dtype), [])
        for name, array in zip(names, weights, strict=True)
    ]
    graph = helper.make_graph(nodes, "graph", [], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, {"labels": '["Säge"]'})
    return model


@pytest.mark.parametrize(
    ("length", "dtype"),
    [(1, "f4"), (1024, "f4"), (1025, "f2"), (1025, "i8"), (2**12 - 1, "f4"), (2**12, "f4"), (2**19, "f4")],
)
def test_reads_as_what_onnx_writes(length: int, dtype: str, tmp_path: Path) -> None:
    """Also where a length takes one more byte."""
    values = np.arange(2 * length, dtype=dtype).reshape(2, length)
    whole = graph_of(values.T, values[:1], values[1])  # of another order in memory, and a part
    split = ir.from_proto(whole)
    weights = take_weights(split)
    assert sorted(weights) == [f"weight {i}" for i, size in enumerate((2 * length, length, length)) if size > 1024]
    write_model(ir.to_proto(split), weights, tmp_path / "model.onnx")
    read = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(read, full_check=True)
    wanted = ir.to_proto(ir.from_proto(whole))
    initializers = [
        {each.name: (each.data_type, each.dims, each.raw_data) for each in model.graph.initializer}
        for model in (read, wanted)
    ]
    assert initializers[0] == initializers[1]
    for model in (read, wanted):
        del model.graph.initializer[:], model.graph.value_info[:]
    assert read == wanted


def test_a_graph_without_its_weights_is_as_valid_as_with_them() -> None:
    model = without_weights(graph_of(np.ones((40, 40), np.float32), np.ones(9, np.float32)))
    onnx.checker.check_model(model, full_check=True)
    assert [entry.name for entry in model.graph.input] == ["weight 0"]
    assert [tensor.name for tensor in model.graph.initializer] == ["weight 1", "shape"]
    model.graph.node[0].op_type = "Reshaped"
    with pytest.raises(onnx.checker.ValidationError, match="Reshaped"):
        onnx.checker.check_model(model, full_check=True)
    bare = helper.make_model(helper.make_graph([], "graph", [], []))
    again = with_inputs(bare, [("x", TensorProto.FLOAT, [2, 3])])
    assert not bare.graph.input
    assert again.graph.input[0] == helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])


def test_a_model_that_no_reader_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_ast(backbone_options=SMALL | {"depth": 1})
    size = sum(parameter.nbytes for parameter in model.parameters())
    monkeypatch.setattr(writing, "LONGEST", size // 2)
    with pytest.raises(
        ExportError, match=rf"^the ONNX graph cannot be written: it takes [\d,]+ bytes, .* {size // 2:,}"
    ):
        write_graph(Inference(model, waveform=False), metadata_of(model, waveform=False), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
