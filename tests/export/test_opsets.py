"""Every opset in every precision: a file that is what it claims, and that a second runtime reads as the first does.

The second is onnx's own ReferenceEvaluator, numpy by the letter of the specification.
"""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.ops import op_dequantize_linear, op_quantize_linear
from onnx.reference.ops.op_attention import Attention

from fastloaa import AST, adapt
from fastloaa.errors import ArgumentError
from fastloaa.export import ExportError, Report, to_onnx
from fastloaa.export.onnx_file import open_session
from fastloaa.export.operators import check_operators
from fastloaa.export.opsets import DEFAULT, OPSETS
from fastloaa.export.precisions import PRECISIONS
from helpers.small import SMALL, small_ast, wake_adapters

Array = NDArray[np.float32]
IR = {17: 8, 18: 8, 20: 9, 21: 10, 23: 11}  # what ONNX's releases with these opsets wrote
WAVEFORM = 0.1 * torch.randn(3, 6000, generator=torch.Generator().manual_seed(0))


def linear(module: ModuleType, name: str) -> type:
    """onnx's evaluator has no (De)QuantizeLinear before opset 19, where they did the same: its newest."""
    versions = {
        int(found.rpartition("_")[2]): made for found, made in vars(module).items() if found.startswith(f"{name}_")
    }
    return type(name, (versions[max(versions)],), {"op_domain": ""})


OLDER = [linear(op_quantize_linear, "QuantizeLinear"), linear(op_dequantize_linear, "DequantizeLinear")]


@pytest.fixture(scope="module")
def model() -> AST:
    torch.manual_seed(0)
    model = adapt(small_ast(frames=32, backbone_options=SMALL | {"embed_dim": 96}), bottleneck=5)
    wake_adapters(model)
    return model


Exported = Callable[[int, str], tuple[Report, Path]]


@pytest.fixture(scope="module")
def exported(model: AST, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    made: dict[tuple[int, str], tuple[Report, Path]] = {}

    def export(opset: int, precision: str) -> tuple[Report, Path]:
        if (opset, precision) not in made:
            path = tmp_path_factory.mktemp("opsets") / f"{opset}-{precision}.onnx"
            clips = list(WAVEFORM) if PRECISIONS[precision].recordings else None
            # The front end is the same in all precisions.
            options: Any = {
                "opset": opset,
                "precision": precision,
                "calibration": clips,
                "waveform": precision == "fp32",
            }
            made[opset, precision] = to_onnx(model, path, embedding=True, force=bool(clips), **options), path
        return made[opset, precision]

    return export


@torch.no_grad()
def pytorch(model: AST) -> tuple[Array, Array, Array]:
    embedding = model.embed(model.front_end(WAVEFORM))
    logits = model.head(embedding)
    return logits.numpy(), logits.softmax(1).numpy(), embedding.numpy()


def largest(first: Any, second: Any) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("opset", OPSETS)
def test_two_runtimes_say_what_pytorch_says(opset: int, precision: str, model: AST, exported: Exported) -> None:
    report, path = exported(opset, precision)
    proto = onnx.load(path)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", opset)]
    assert proto.ir_version == IR[opset]
    session, metadata = open_session(path, ["CPUExecutionProvider"])
    assert (report.opset, metadata.opset, metadata.embedding) == (opset, opset, 96)
    assert report.onnxruntime == metadata.onnxruntime

    x = WAVEFORM if precision == "fp32" else model.front_end(WAVEFORM)
    feed = {metadata.input: x.numpy()}
    first = session.run(["logits", "probabilities", "embedding"], feed)
    second = ReferenceEvaluator(proto, new_ops=OLDER if opset < 19 else None).run(None, feed)
    wanted = pytorch(model)
    if precision == "fp32":
        assert largest(first, wanted) < 1e-5
        assert largest(second, wanted) < 1e-5
    elif precision == "fp16":  # where onnxruntime computes in float32, and numpy does not
        assert 1e-5 < largest(first, wanted) < 0.01
        assert 1e-5 < largest(second, wanted) < 0.01
    else:  # rounded alike: they are nearer to each other than either is to what both round
        assert 1e-3 < largest(second, wanted) < 0.2
        assert largest(first, second) < largest(second, wanted) / 2, (largest(first, second), largest(second, wanted))


class Unscaled(Attention):
    """Attention that has forgotten its scale."""

    op_domain = ""

    def _run(self, *inputs: Any, **attributes: Any) -> Any:
        return super()._run(*inputs, **attributes | {"scale": 1.0})


def test_a_wrong_attention_is_found(model: AST, exported: Exported) -> None:
    """The comparison above sees it, and by much."""
    proto = onnx.load(exported(23, "fp32")[1])
    Unscaled.__name__ = "Attention"
    wrong = ReferenceEvaluator(proto, new_ops=[Unscaled]).run(None, {"waveform": WAVEFORM.numpy()})
    assert largest(wrong, pytorch(model)) > 1e-3


def test_which_runtimes_a_file_needs(exported: Exported) -> None:
    """That of the opset, or of an operator that came later: onnxruntime 1.23 has opset 23, but not its
    QuantizeLinear."""
    found = {opset: [exported(opset, precision)[0].onnxruntime for precision in PRECISIONS] for opset in (17, 23)}
    assert found == {17: ["1.17"] * 4, 23: ["1.23", "1.23", "1.24", "1.23"]}


def test_the_default_is_not_one_that_runtimes_get_wrong(model: AST, exported: Exported, tmp_path: Path) -> None:
    report = to_onnx(model, tmp_path / "model.onnx", waveform=False)
    assert report.opset == DEFAULT < 23
    assert not any(node.op_type == "Attention" for node in onnx.load(tmp_path / "model.onnx").graph.node)
    assert [node.op_type for node in onnx.load(exported(23, "fp32")[1]).graph.node].count("Attention") == 2


@pytest.mark.parametrize("opset", [17, 18, 20])
def test_onnxruntime_fuses_what_is_written_in_older_operators(
    opset: int, model: AST, exported: Exported, tmp_path: Path
) -> None:
    """GELU to one operator, and attention's scale into its product."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(exported(opset, "fp32")[1], options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(tmp_path / "optimised.onnx").graph.node
    operators = [node.op_type for node in nodes]
    assert "Erf" not in operators
    assert sum(operator in ("Gelu", "BiasGelu") for operator in operators) == 6  # of two FFNs and four adapters
    alphas = [a.f for node in nodes if node.op_type == "FusedMatMul" for a in node.attribute if a.name == "alpha"]
    assert [alpha for alpha in alphas if alpha != 1] == pytest.approx([32**-0.5] * 2)


@pytest.mark.parametrize("opset", [16, 19, 22, 24, 0, "18", True, 18.0])
def test_other_opsets_are_refused(opset: Any, model: AST, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"opset is one of 17, 18, 20, 21, 23, or None for \d+; got "):
        to_onnx(model, tmp_path / "model.onnx", opset=opset)
    assert not list(tmp_path.iterdir())


def file_of(node: onnx.NodeProto, path: Path, opset: int = 18, ir: int = 8, domain: str = "") -> Path:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy"]
    graph = helper.make_graph([node], "graph", ports[:1], ports[1:])
    imports = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=ir), path)
    return path


def test_a_file_that_is_not_what_it_claims_is_found(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    relu, gelu = helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Gelu", ["x"], ["y"])
    fused = helper.make_node("QuickGelu", ["x"], ["y"], domain="com.microsoft")
    assert check_operators(file_of(relu, path), 18) == OPSETS[18]
    assert check_operators(file_of(gelu, path, 20, 9), 20) == OPSETS[20]
    for file, complaint in (
        (lambda: file_of(gelu, path), "not valid in opset 18: .*Gelu"),
        (lambda: file_of(relu, path, 20, 9), "another opset than 18"),
        (lambda: file_of(relu, path, 18, 10), "IR version 10 came out, expected 8 for opset 18"),
        (lambda: file_of(fused, path, domain="com.microsoft"), "not standard ONNX came out, of com.microsoft"),
    ):
        with pytest.raises(ExportError, match=complaint):
            check_operators(file(), 18)
    assert check_operators(file_of(fused, path, domain="com.microsoft"), 18, contrib=True) == OPSETS[18]
