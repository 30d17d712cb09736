"""int8 without recordings: activations are quantised as they come, in a range of each token's own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloaa.export.quantise import block_products, safe_ranges
from fastloaa.extras import optional

Array = NDArray[Any]


def quantise_dynamically(source: Path, target: Path) -> None:
    """Write the file `source` with the products of its transformer blocks in 8 bits, without recordings.

    Weights are int8 with a scale for each output, as by `quantise`; activations uint8, in steps that the graph finds
    for each token when it runs: an answer does not depend on what else is in the batch, as it would by ONNX's
    DynamicQuantizeLinear, which has one range for all. Standard operators (MatMulInteger); the integer products are
    exact on every CPU.
    """
    onnx = optional("onnx")
    model = onnx.load(source)
    rewriting = _Rewriting(onnx, model)
    products = {node.name for node in block_products(model)}
    for node in model.graph.node:
        if node.name in products:
            rewriting.product(node)
        else:
            rewriting.nodes.append(node)
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(rewriting.nodes)
    model.graph.initializer.extend(rewriting.initializers.values())
    onnx.save(model, target)


class _Rewriting:
    """Nodes and initializers of the graph that a file becomes."""

    def __init__(self, onnx: Any, model: Any) -> None:
        self.onnx, self.nodes = onnx, []  # type: ignore[var-annotated]
        self.opset = next(entry.version for entry in model.opset_import if not entry.domain)
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.quantised: set[str] = set()
        constants: dict[str, Any] = {
            "int8/levels": np.float32(127),
            "int8/middle": np.float32(128),
            "int8/zero_point": np.uint8(128),
            "int8/least": np.float32(1e-30),  # for tokens that are zero
        }
        if self.opset >= 18:  # before, ReduceMax had it as an attribute
            constants["int8/last"] = np.array([-1])
        for name, value in constants.items():
            self._constant(name, np.asarray(value))

    def product(self, node: Any) -> None:
        """x [batch, tokens, in] @ weight [in, out], by way of integers."""
        x, weight = node.input
        if x not in self.quantised:  # once, for all products that read it
            self._quantise(node.name, x)
        if weight in self.initializers:
            self._weight(weight)
        y, name = node.output[0], node.name
        inputs = [f"{x}/int8", f"{weight}/int8", "int8/zero_point"]
        self._node("MatMulInteger", inputs, f"{y}/int32", name)
        self._node("Cast", [f"{y}/int32"], f"{y}/float", f"{name}/Cast", to=self.onnx.TensorProto.FLOAT)
        self._node("Mul", [f"{y}/float", f"{weight}/scale"], f"{y}/of_outputs", f"{name}/OfOutputs")
        self._node("Mul", [f"{y}/of_outputs", f"{x}/scale"], y, f"{name}/OfTokens")

    def _quantise(self, name: str, x: str) -> None:
        """x [batch, tokens, in] -> uint8 around 128, and its step [batch, tokens, 1]."""
        self.quantised.add(x)
        self._node("Abs", [x], f"{x}/abs", f"{name}/Abs")
        if self.opset < 18:
            self._node("ReduceMax", [f"{x}/abs"], f"{x}/largest", f"{name}/Largest", axes=[-1])
        else:
            self._node("ReduceMax", [f"{x}/abs", "int8/last"], f"{x}/largest", f"{name}/Largest")
        self._node("Div", [f"{x}/largest", "int8/levels"], f"{x}/step", f"{name}/Step")
        self._node("Max", [f"{x}/step", "int8/least"], f"{x}/scale", f"{name}/Scale")
        self._node("Div", [x, f"{x}/scale"], f"{x}/steps", f"{name}/Steps")
        self._node("Round", [f"{x}/steps"], f"{x}/rounded", f"{name}/Round")
        self._node("Add", [f"{x}/rounded", "int8/middle"], f"{x}/shifted", f"{name}/Shift")
        self._node("Cast", [f"{x}/shifted"], f"{x}/int8", f"{name}/Levels", to=self.onnx.TensorProto.UINT8)

    def _weight(self, name: str) -> None:
        weight = self.onnx.numpy_helper.to_array(self.initializers.pop(name))
        scale = safe_ranges(weight) / 127
        levels = np.rint(weight / np.where(scale > 0, scale, 1))
        self._constant(f"{name}/int8", levels.astype(np.int8))
        self._constant(f"{name}/scale", scale)

    def _constant(self, name: str, value: Array) -> None:
        self.initializers[name] = self.onnx.numpy_helper.from_array(value, name)

    def _node(self, operator: str, inputs: Sequence[str], output: str, name: str, **attributes: Any) -> None:
        self.nodes.append(self.onnx.helper.make_node(operator, inputs, [output], name, **attributes))
