"""verify: a file that does not say what its model says is refused, with the figures."""

import copy
from pathlib import Path

import onnx
import pytest
import torch
from onnx import numpy_helper

from fastloaa import AST, adapt
from fastloaa.export import VerificationError, to_onnx
from fastloaa.export.verify import verify
from fastloaa.files import FileError
from helpers.small import small_ast, wake_adapters


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[AST, Path]:
    torch.manual_seed(0)
    model = adapt(small_ast(), bottleneck=4)
    wake_adapters(model)
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    to_onnx(model, path)
    return model, path


def test_reports_the_largest_difference_of_noise_and_clips(exported: tuple[AST, Path]) -> None:
    model, path = exported
    report = verify(path, model, clips=[torch.randn(1), torch.randn(20_000)])
    assert report.batches == (1, 3)
    assert (report.recordings, report.agreement) == (2, 1.0)
    assert report.size == path.stat().st_size
    assert 0 < report.difference < 1e-5


def test_clips_of_many_lengths_are_compared_each_with_its_own(exported: tuple[AST, Path]) -> None:
    """More than PyTorch is given at once."""
    model, path = exported
    generator = torch.Generator().manual_seed(3)
    clips = [level * torch.randn(level * 1500, generator=generator) for level in range(1, 12)]
    report = verify(path, model, clips)
    assert (report.recordings, report.agreement) == (11, 1.0)
    assert 0 < report.difference < 1e-5


FIRST_BLOCK = {  # the shape of a weight, and where the adapter's part of it begins
    "attention's down": ((48, 3 * 48 + 16), (slice(None), slice(144, None))),
    "attention's up": ((48 + 16, 48), (slice(48, None), slice(None))),
    "FFN's down": ((48, 192 + 16), (slice(None), slice(192, None))),
    "FFN's up": ((192 + 16, 48), (slice(192, None), slice(None))),
}


@pytest.mark.parametrize(("shape", "part"), FIRST_BLOCK.values(), ids=FIRST_BLOCK)
def test_weights_two_percent_off_are_found(
    shape: tuple[int, ...], part: tuple[slice, ...], exported: tuple[AST, Path], tmp_path: Path
) -> None:
    model, path = exported
    proto = onnx.load(path)
    tensor = next(tensor for tensor in proto.graph.initializer if tuple(tensor.dims) == shape)
    values = numpy_helper.to_array(tensor).copy()
    values[part] *= 1.02
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(proto, tmp_path / "wrong.onnx")
    with pytest.raises(VerificationError, match=r"differs from PyTorch by [\d.e-]+ in the logits .* at most 0\.0001"):
        verify(tmp_path / "wrong.onnx", model)


def test_a_front_end_two_percent_off_is_found(exported: tuple[AST, Path], tmp_path: Path) -> None:
    model, path = exported
    proto = onnx.load(path)
    (tensor,) = (tensor for tensor in proto.graph.initializer if tensor.name.endswith("fourier"))
    tensor.CopyFrom(numpy_helper.from_array(1.02 * numpy_helper.to_array(tensor), tensor.name))
    onnx.save(proto, tmp_path / "wrong.onnx")
    with pytest.raises(VerificationError, match="in the logits"):
        verify(tmp_path / "wrong.onnx", model)


def test_wrong_probabilities_are_found(exported: tuple[AST, Path], tmp_path: Path) -> None:
    model, path = exported
    proto = onnx.load(path)
    softmax = proto.graph.node[-1]
    assert softmax.op_type == "Softmax"
    softmax.attribute[0].i = 0  # over the batch
    onnx.save(proto, tmp_path / "wrong.onnx")
    with pytest.raises(VerificationError, match="in the probabilities"):
        verify(tmp_path / "wrong.onnx", model)


def test_a_batch_that_became_a_constant_is_found(exported: tuple[AST, Path], tmp_path: Path) -> None:
    model, path = exported
    proto = onnx.load(path)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(proto, tmp_path / "wrong.onnx")
    with pytest.raises(VerificationError, match=r"cannot run input \(1, \d+\)"):
        verify(tmp_path / "wrong.onnx", model)


def test_not_a_number_is_found(exported: tuple[AST, Path]) -> None:
    broken = copy.deepcopy(exported[0])
    broken.head[1].bias.data[0] = torch.nan
    with pytest.raises(VerificationError, match="by nan in the logits"):
        verify(exported[1], broken)


def test_a_model_of_other_classes_is_found(exported: tuple[AST, Path]) -> None:
    with pytest.raises(VerificationError, match=r"shape \(1, 5\), PyTorch \(1, 7\)"):
        verify(exported[1], small_ast(7))


def test_a_missing_file(exported: tuple[AST, Path]) -> None:
    with pytest.raises(FileError, match="no such file"):
        verify("nowhere.onnx", exported[0])
