"""Which operators a graph may have: lowering to an opset, and the check that a file is what it claims."""

from pathlib import Path
from typing import Any

from packaging.version import Version

from fastloaa.errors import FastloaaError
from fastloaa.export.opsets import OPSETS
from fastloaa.export.writing import without_weights
from fastloaa.extras import optional

# Operators that an onnxruntime of OPSETS lacks although it has the opset: by name and the opset that defined them.
_LATE = {("QuantizeLinear", 23): "1.24", ("DequantizeLinear", 23): "1.24"}
_REDUCTIONS = {f"Reduce{name}" for name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod")}
_REDUCTIONS.add("ReduceSumSquare")


class ExportError(FastloaaError, RuntimeError):
    """A model that cannot be written as an ONNX graph."""


def lower(model: Any, opset: int) -> None:
    """Take an `onnx_ir.Model` of opset 18 to 17 in place, the others to their own IR version.

    What is newer than 18 is not in the graph: `torch.onnx.export` decomposes by the version that it is given.
    """
    onnx, ir = optional("onnx"), optional("onnx_ir")
    model.ir_version = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])
    for node in model.graph.all_nodes():
        if node.op_type == "Erf":
            _make_fusible(node)
    if model.opset_imports[""] == opset:
        return
    model.opset_imports[""] = opset
    for node in model.graph.all_nodes():
        node.version = None
        if node.op_type in _REDUCTIONS and len(node.inputs) > 1:  # axes were attributes
            axes = node.inputs[1] and node.inputs[1].const_value
            if axes is not None:
                node.attributes.pop("noop_with_empty_axes", None)
                node.attributes["axes"] = ir.AttrInt64s("axes", axes.numpy().tolist())
                node.resize_inputs(1)
        elif node.op_type == "Split":
            node.attributes.pop("num_outputs", None)  # which equal parts do without


def _make_fusible(erf: Any) -> None:
    """GELU as runtimes know it: x * (1 + erf(x / sqrt(2))) * 0.5, where the exporter has 0.5 before x."""
    division = erf.inputs[0].producer()
    chain = [erf]
    for operator in ("Add", "Mul", "Mul"):
        following = [use.node for use in chain[-1].outputs[0].uses()]
        if len(following) != 1 or following[0].op_type != operator:
            return
        chain.append(following[0])
    *_, added, halved, whole = chain
    if division is None or division.op_type != "Div" or division.inputs[0] not in whole.inputs:
        return
    x, one_more = division.inputs[0], added.outputs[0]
    (half,) = (value for value in halved.inputs if value is not one_more)
    if half is not x:
        halved.replace_input_with(list(halved.inputs).index(half), x)
        whole.replace_input_with(list(whole.inputs).index(x), half)


def check_operators(model: Any, opset: int, contrib: bool = False) -> str:
    """Is a file valid ONNX, of standard operators, all of the opset that it claims and of no newer file format?

    Args:
        model: a `ModelProto`, or where there is one.
        contrib: operators of com.microsoft are allowed too.

    Returns:
        The oldest onnxruntime that runs it, by the opset and the operators that the file uses.

    Raises:
        ExportError: it is not.
    """
    onnx = optional("onnx")
    if isinstance(model, Path):
        model = without_weights(onnx.load(model))
    try:
        onnx.checker.check_model(model, full_check=True)  # an operator that the opset has not is an error
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the ONNX graph is not valid in opset {opset}: {first_line(error)}") from error
    imported = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    if imported.pop("ai.onnx", None) != opset:
        raise ExportError(f"an ONNX graph of another opset than {opset} came out: {model.opset_import}")
    if set(imported) - ({"com.microsoft"} if contrib else set()):
        raise ExportError(f"operators that are not standard ONNX came out, of {', '.join(sorted(imported))}")
    least = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])
    if model.ir_version > least:
        raise ExportError(f"an ONNX file of IR version {model.ir_version} came out, expected {least} for opset {opset}")
    used = {node.op_type for node in model.graph.node if not node.domain}
    since = {(name, onnx.defs.get_schema(name, opset).since_version) for name in used}
    return max((OPSETS[opset], *(_LATE[key] for key in since & _LATE.keys())), key=Version)


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
