"""int8 without recordings: exact on every CPU, the same beside any neighbour, and checked nevertheless."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from fastloaa import AST, adapt
from fastloaa.export import VerificationError, to_onnx
from fastloaa.export.dynamic import quantise_dynamically
from fastloaa.export.precisions import PRECISIONS, Precision
from helpers.small import SMALL, small_ast, wake_adapters


@pytest.fixture(scope="module")
def model() -> AST:
    torch.manual_seed(0)
    model = adapt(small_ast(frames=32, backbone_options=SMALL | {"embed_dim": 96}), bottleneck=5)
    wake_adapters(model)
    return model


@pytest.fixture(scope="module")
def path(model: AST, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dynamic") / "model.onnx"
    to_onnx(model, path, precision="int8-dynamic")
    return path


def run(path: Path, waveform: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"waveform": waveform.numpy()})[0])


def test_no_pair_of_products_can_saturate_16_bits(path: Path) -> None:
    """As of the calibrated file: CPUs without VNNI add the products of neighbours in 16 bits."""
    proto = onnx.load(path)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    products = [node for node in proto.graph.node if node.op_type == "MatMulInteger"]
    assert len(products) == 4 + 5  # qkv, proj, fc1 and fc2; of the last block q and kv apart
    for node in products:
        weight = constants[node.input[1]].astype(int)
        assert constants[node.input[1]].dtype == np.int8
        assert len(node.input) == 3  # weights have no zero point
        for sign in (1, -1):
            summed = np.maximum(sign * weight, 0)
            assert 255 * (summed[1:] + summed[:-1]).max() <= np.iinfo(np.int16).max


def test_a_clip_is_answered_alike_in_any_company(path: Path) -> None:
    """One range for a batch would let a loud neighbour drown a quiet clip."""
    quiet, loud = 1e-3 * torch.randn(1, 6000), torch.sin(torch.arange(6000.0))[None]
    alone = run(path, quiet)
    torch.testing.assert_close(run(path, torch.cat((quiet, loud)))[:1], alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(run(path, torch.cat((loud, loud, quiet)))[2:], alone, atol=1e-5, rtol=0)


def test_rounding_is_that_of_8_bits(tmp_path: Path) -> None:
    """Of one product, against float64: half a step of each factor, and tokens that are zero, huge or tiny."""
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(32, 7)).astype(np.float32)
    weight[:, 3] = 0
    x = generator.normal(size=(2, 6, 32)).astype(np.float32) * np.array([1, 0, 1e30, 1e-30, 1e-44, 50])[:, None]
    x = x.astype(np.float32)
    ports = [
        onnx.helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 6, 32]),
        onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 6, 7]),
    ]
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"], "model.blocks.0.fc/MatMul")
    graph = onnx.helper.make_graph([node], "g", ports[:1], ports[1:], [numpy_helper.from_array(weight, "w")])
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "plain.onnx")
    quantise_dynamically(tmp_path / "plain.onnx", tmp_path / "int8.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "int8.onnx", providers=["CPUExecutionProvider"])
    exact = x.astype(np.float64) @ weight
    largest = np.abs(x).max(axis=2, keepdims=True).astype(np.float64)
    pairs = np.abs(weight[1:] + weight[:-1]).max(axis=0)  # the most that a step of the weights may cover
    steps = largest / 127, np.maximum(np.abs(weight).max(axis=0), pairs) / 127
    bound = steps[0] / 2 * np.abs(weight).sum(axis=0) + steps[1] / 2 * np.abs(x).sum(axis=2, keepdims=True)
    bound = bound + 32 * steps[0] * steps[1] / 4 + 32 * 1e-30  # and what is less than the least step
    for y in (session.run(None, {"x": x})[0], ReferenceEvaluator(str(tmp_path / "int8.onnx")).run(None, {"x": x})[0]):
        assert (np.abs(y - exact) <= 1.001 * bound).all()


def test_a_file_that_is_wrong_is_refused_without_recordings(
    model: AST, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(source: Path, target: Path, _: object) -> None:
        """The last weight's scales are lost."""
        quantise_dynamically(source, target)
        proto = onnx.load(target)
        scale = next(tensor for tensor in reversed(proto.graph.initializer) if tensor.name.endswith("/scale"))
        scale.CopyFrom(numpy_helper.from_array(0 * numpy_helper.to_array(scale), scale.name))
        onnx.save(proto, target)

    monkeypatch.setitem(PRECISIONS, "forgetful", Precision(convert=forgetful, recordings=False))
    with pytest.raises(VerificationError, match=r"the error of the forgetful file's logits has [\d.]+% of their power"):
        to_onnx(model, tmp_path / "model.onnx", precision="forgetful")
    assert not list(tmp_path.iterdir())
