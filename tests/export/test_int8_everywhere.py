"""int8 files answer alike on every CPU.

Where a CPU has no VNNI, onnxruntime adds two products of bytes in 16 bits (vpmaddubsw), which saturate at 32767. What a
file holds decides whether that can happen, on any machine that runs these tests.
"""

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.utils import Extractor

from fastloaa import AST, adapt
from fastloaa.export import to_onnx
from helpers.small import SMALL, small_ast, wake_adapters


@dataclass(frozen=True)
class Product:
    """A MatMul of the file with what is quantised around it.

    Args:
        reads, gives: names of the float32 tensors before its QuantizeLinear and behind it.
        scale, zero_point: of its activations.
        weight: int8 [in, out].
        weight_scale, weight_zero_point: [out].
    """

    reads: str
    gives: str
    scale: NDArray[np.float32]
    zero_point: NDArray[np.uint8]
    weight: NDArray[np.int8]
    weight_scale: NDArray[np.float32]
    weight_zero_point: NDArray[np.int8]


def products_of(proto: onnx.ModelProto) -> list[Product]:
    """Every product that an int8 file computes in integers."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    maker = {name: node for node in proto.graph.node for name in node.output}
    found = []
    for node in proto.graph.node:
        a, b = (maker.get(name) for name in node.input) if node.op_type == "MatMul" else (None, None)
        if a is None or b is None or {a.op_type, b.op_type} != {"DequantizeLinear"}:
            continue
        quantised = maker[a.input[0]]
        assert quantised.op_type == "QuantizeLinear"
        activation = [constants[name] for name in quantised.input[1:]]
        weight = [constants[name] for name in b.input]
        found.append(Product(quantised.input[0], node.output[0], *activation, *weight[:2], weight[2]))
    return found


@pytest.fixture(scope="module")
def model() -> AST:
    """Columns that a quantiser may stumble over beside ordinary ones."""
    torch.manual_seed(0)
    model = adapt(small_ast(backbone_options=SMALL | {"embed_dim": 96}), bottleneck=5)
    wake_adapters(model)
    weight = model.backbone.blocks[0].mlp.fc1.weight.data  # [out, in]
    weight[0] = 0
    weight[1] = 0.1 * (-1.0) ** torch.arange(96)  # every value at an end of the range
    weight[2] = -0.1
    weight[3, 0] = 50.0  # an outlier
    weight[4] *= 1e-30
    weight[5] = 0.1
    return model


@pytest.fixture(scope="module")
def proto(model: AST, tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    path = tmp_path_factory.mktemp("int8") / "model.onnx"
    clips = [0.1 * torch.randn(9000) for _ in range(4)]
    to_onnx(model, path, precision="int8", calibration=clips, force=True)
    return onnx.load(path)


def test_no_pair_of_products_can_saturate_16_bits(proto: onnx.ModelProto) -> None:
    """Neighbours of a row, which is what vpmaddubsw brings together, with activations at their largest."""
    products = products_of(proto)
    assert len(products) == 4 + 5  # qkv, proj, fc1 and fc2; of the last block q and kv apart
    for product in products:
        assert (product.weight.dtype, product.zero_point.dtype) == (np.int8, np.uint8)
        assert not product.weight_zero_point.any()  # kernels multiply what is stored, and correct sums later
        for sign in (1, -1):
            summed = np.maximum(sign * product.weight.astype(int), 0)  # those whose products add up
            pairs = summed[1:] + summed[:-1]  # in whichever order a kernel packs them, even first or odd first
            assert 255 * max(pairs.max(), summed.max()) <= np.iinfo(np.int16).max, product.gives


def test_onnxruntime_computes_the_exact_integers(proto: onnx.ModelProto) -> None:
    """With the activations that bring each output's sums as far up and as far down as they go."""
    extractor = Extractor(proto)
    for product in products_of(proto):
        up = np.where(product.weight.T > 0, 255, 0)  # [out, in]
        levels = np.concatenate((up, 255 - up))  # [2 * out, in]
        centred = levels - int(product.zero_point)
        alone = extractor.extract_model([product.reads], [product.gives])
        for value in (*alone.graph.input, *alone.graph.output):
            value.type.tensor_type.ClearField("shape")  # any number of rows
        session = onnxruntime.InferenceSession(alone.SerializeToString(), providers=["CPUExecutionProvider"])
        activations = (centred * product.scale).astype(np.float32)[np.newaxis]
        (answers,) = session.run(None, {product.reads: activations})
        unit = product.scale.astype(float) * product.weight_scale.astype(float)  # [out]
        exact = centred @ product.weight.astype(int) * unit  # [2 * out, out]
        rounding = 1e-6 * (np.abs(centred) @ np.abs(product.weight.astype(int)) * unit)
        assert (np.abs(answers[0] - exact) <= rounding).all(), product.gives


def test_the_weights_are_those_of_the_model(model: AST, proto: onnx.ModelProto) -> None:
    """They lose at most half a step of each output's range, whatever else is in the matrix."""
    for product in products_of(proto):
        ends = np.abs(product.weight.astype(int)).max(axis=0)
        assert ends.max() == 127  # where no large weights stand side by side
        assert ends[ends > 0].min() >= 63  # and two that are as large have half of the range each
    fc1 = next(product for product in products_of(proto) if product.weight.shape == (96, 400))  # the first block's
    stored = (fc1.weight * fc1.weight_scale).T[:384]
    weight = model.backbone.blocks[0].mlp.fc1.weight.detach().numpy()
    pairs = np.abs(weight[:, 1:] + weight[:, :-1]) * (np.sign(weight[:, 1:]) == np.sign(weight[:, :-1]))
    step = np.maximum(np.abs(weight).max(axis=1), pairs.max(axis=1))[:, None] / 127
    assert (np.abs(stored - weight) <= 0.501 * step).all()
