"""to_onnx in float16 and in 8 bits: what is stored, what stays, and when a file is refused."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from torch import Tensor

from fastloaa import AST, adapt
from fastloaa.export import Report, VerificationError, to_onnx
from fastloaa.export.precisions import PRECISIONS
from fastloaa.export.quantise import Recordings
from fastloaa.export.verify import verify
from helpers.small import SMALL, small_ast, wake_adapters


def tones(count: int, seed: int = 0) -> list[Tensor]:
    """Recordings that differ: a tone each, louder or softer, in a little noise."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(9000) / 16000
    pitches, levels = torch.rand(2, count, 1, generator=generator)
    clips = levels * torch.sin(2 * torch.pi * (100 + 6000 * pitches) * time)
    return list(clips + 0.01 * torch.randn(count, 9000, generator=generator))


@pytest.fixture(scope="module")
def model() -> AST:
    torch.manual_seed(0)
    model = adapt(small_ast(backbone_options=SMALL | {"embed_dim": 96}), bottleneck=5)
    wake_adapters(model)
    return model


def front_end_size(model: AST) -> int:
    """Numbers in its matrices."""
    return model.front_end.log_mel.fourier.numel() + model.front_end.log_mel.mel.numel()


Exported = Callable[[str], tuple[Report, Path]]


@pytest.fixture(scope="module")
def exported(model: AST, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    made: dict[str, tuple[Report, Path]] = {}

    def export(precision: str) -> tuple[Report, Path]:
        if precision not in made:
            path = tmp_path_factory.mktemp(precision) / "model.onnx"
            clips = tones(20)
            made[precision] = to_onnx(model, path, precision=precision, calibration=clips, force=True), path  # type: ignore[arg-type]
        return made[precision]

    return export


@pytest.mark.parametrize(
    ("precision", "least", "most"), [("fp16", 1e-5, 0.01), ("int8", 1e-3, 0.1), ("int8-dynamic", 1e-3, 0.1)]
)
@torch.no_grad()
def test_answers_are_near_pytorchs(
    precision: str, least: float, most: float, model: AST, exported: Exported, capfd: pytest.CaptureFixture[str]
) -> None:
    report, path = exported(precision)
    assert capfd.readouterr().out == ""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    unheard = torch.stack(tones(17, seed=1))
    expected = model(model.front_end(unheard))
    logits = torch.from_numpy(session.run(["logits"], {"waveform": unheard.numpy()})[0])
    assert least < (logits - expected).abs().max() < most
    assert least < report.difference < most
    assert (report.precision, report.recordings, report.batches) == (precision, 20, (1, 3))
    assert report.agreement is not None
    assert report.agreement >= 0.9
    assert report.size == path.stat().st_size
    assert session.get_modelmeta().custom_metadata_map["precision"] == precision


UNUSABLE = {
    "nothing": torch.zeros(1, 0),
    "NaN": torch.tensor([[0.1] * 5000 + [torch.nan]]),
    "infinite": torch.tensor([[torch.inf] + [0.1] * 5000]),
    "minus infinite": torch.tensor([[0.1, -torch.inf]]),
    "both infinities": torch.tensor([[torch.inf, -torch.inf]]),
    "far too large": torch.tensor([[1e30, -1e30] * 2500]),
    "NaN beyond the window": torch.tensor([[0.1] * 20_000 + [torch.nan]]),
}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_is_no_recording_gives_no_answer(precision: str, exported: Exported) -> None:
    """NaN, where padding would make silence of it and 8 bits a number; a neighbour in the batch is answered."""
    session = onnxruntime.InferenceSession(exported(precision)[1], providers=["CPUExecutionProvider"])
    for name, waveform in UNUSABLE.items():
        neighbour = torch.full_like(waveform, 0.1)
        batch = torch.cat((waveform, neighbour)) if waveform.numel() else waveform
        for answers in session.run(["logits", "probabilities"], {"waveform": batch.numpy()}):
            assert np.isnan(answers[0]).all(), name
            assert np.isfinite(answers[1:]).all(), name


def test_what_is_half_precision(model: AST, exported: Exported) -> None:
    """Weights of the backbone; what a head and a front end need their range for stays."""
    proto = onnx.load(exported("fp16")[1])
    elements = Counter()
    for tensor in proto.graph.initializer:
        elements[tensor.data_type] += int(np.prod(tensor.dims))
    float32 = front_end_size(model) + 96 * 5
    assert float32 <= elements[TensorProto.FLOAT] < float32 + 1000
    assert elements[TensorProto.FLOAT16] > 2 * 12 * 96 * 96
    assert {value.type.tensor_type.elem_type for value in (*proto.graph.input, *proto.graph.output)} == {
        TensorProto.FLOAT
    }


def test_what_is_8_bits(model: AST, exported: Exported) -> None:
    """Every weight of the blocks' products; front end, patches and head are float32."""
    proto = onnx.load(exported("int8")[1])
    onnx.checker.check_model(proto, full_check=True)
    assert {entry.domain for entry in proto.opset_import} == {""}
    sizes = Counter()
    for tensor in proto.graph.initializer:
        if len(tensor.dims) >= 2:
            sizes[tensor.data_type] += int(np.prod(tensor.dims))
    adapters = 2 * 2 * 2 * (16 * 96)  # 15 columns, padded to a multiple of 8
    assert sizes[TensorProto.INT8] == 2 * 12 * 96 * 96 + adapters
    patches, positions, tokens = 96 * 256, 34 * 96, 2 * 96
    assert sizes[TensorProto.FLOAT] == front_end_size(model) + 96 * 5 + patches + positions + tokens
    assert {prop.key for prop in proto.metadata_props}.isdisjoint({"onnx.infer", "onnx.quant.pre_process"})


@pytest.fixture
@torch.no_grad()
def undecided() -> AST:
    """Two classes between which only rounding decides: they differ along a direction in which no clip does."""
    model = adapt(small_ast(2, backbone_options=SMALL | {"depth": 1}), bottleneck=5)
    embedding = model.head[0](model.embed(model.front_end(torch.stack(tones(20)))))
    unused = torch.linalg.svd(embedding.double()).Vh[-1].float()
    first = model.head[1].weight[0]
    model.head[1].weight.copy_(torch.stack((first, first + 10 * unused)))
    model.head[1].bias.zero_()
    return model


def test_a_file_that_names_other_classes_is_refused(undecided: AST, tmp_path: Path) -> None:
    path, clips = tmp_path / "model.onnx", tones(20)
    complaint = (
        r"the int8 file names the class that PyTorch names for \d+ of 20 recordings, expected at least 99%; "
        r"give more recordings .* or force it \(force=True, --force\)"
    )
    with pytest.raises(VerificationError, match=complaint):
        to_onnx(undecided, path, waveform=False, precision="int8", calibration=clips)
    assert not list(tmp_path.iterdir())
    report = to_onnx(undecided, path, waveform=False, precision="int8", calibration=clips, force=True)
    assert report.agreement is not None
    assert report.agreement < 0.99
    with pytest.raises(VerificationError, match=complaint):
        verify(path, undecided, clips)


def test_recordings_in_parts() -> None:
    """What onnxruntime's calibration asks for: all of them, or a range, and None at the end."""
    inputs = [np.full(1, number, np.float32) for number in range(5)]
    feeds = [{"x": array} for array in inputs]
    reader = Recordings("x", inputs)
    assert len(reader) == 5
    assert [reader.get_next() for _ in range(6)] == [*feeds, None]
    reader.set_range(start_index=1, end_index=3)
    assert [reader.get_next() for _ in range(3)] == [*feeds[1:3], None]
