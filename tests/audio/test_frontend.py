"""FrontEnd against AST's recipe, written clip by clip with torchaudio in float64."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchaudio.compliance.kaldi import fbank

from fastloaa.audio import FRONT_ENDS, STATISTICS, FrontEnd, SpecAugment, measure_statistics

FRAMES = 8
ESC50: dict[str, Any] = {"mean": -6.6268077, "std": 5.358466}


def kaldi(clip: Tensor, sample_rate: int = 16000) -> Tensor:
    """Unpadded log-mel `[frames, 128]` of one clip `[samples]`, float64; no frames where torchaudio refuses."""
    clip = clip.double()
    if len(clip) < sample_rate * 0.025:
        return torch.zeros(0, 128, dtype=torch.float64)
    return fbank(
        (clip - clip.mean())[None],
        htk_compat=True,
        sample_frequency=sample_rate,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=128,
        dither=0.0,
        frame_shift=10,
    )


def ast_recipe(clip: Tensor, frames: int, mean: float, std: float, sample_rate: int = 16000) -> Tensor:
    """Features `[frames, 128]` of one clip `[samples]`, float32."""
    log_mel = kaldi(clip, sample_rate)
    missing = frames - len(log_mel)
    log_mel = torch.nn.ZeroPad2d((0, 0, 0, missing))(log_mel) if missing > 0 else log_mel[:frames]
    return ((log_mel - mean) / (std * 2)).float()


def clips(*lengths: int) -> list[Tensor]:
    """Noise of these lengths with unlike loudness and offsets."""
    return [0.1 * torch.rand(()) * torch.randn(n) + 0.2 * torch.randn(()) for n in lengths]


@pytest.mark.parametrize("sample_rate", [16000, 24000])
@pytest.mark.parametrize("samples", [400, 1519, 1520, 1521, 2280, 9000])
def test_equals_asts_recipe(samples: int, sample_rate: int) -> None:
    batch = torch.stack(clips(samples, samples, samples))
    expected = torch.stack([ast_recipe(clip, FRAMES, **ESC50, sample_rate=sample_rate) for clip in batch])
    result = FrontEnd(FRAMES, sample_rate=sample_rate, **ESC50)(batch)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=0)


def test_an_offset_costs_no_accuracy() -> None:
    clip = 0.9 + 1e-3 * torch.randn(2000)
    features = FrontEnd(FRAMES, **ESC50)(clip[None])[0]
    torch.testing.assert_close(features, ast_recipe(clip, FRAMES, **ESC50), atol=2e-5, rtol=0)


@settings(max_examples=60)
@given(st.lists(st.integers(1, 2000), min_size=1, max_size=5))
def test_a_padded_clip_is_as_it_is_alone(lengths: list[int]) -> None:
    front_end, alone = FrontEnd(FRAMES, **ESC50), clips(*lengths)
    together = front_end(pad_sequence(alone, batch_first=True), torch.tensor(lengths))
    for clip, features in zip(alone, together, strict=True):
        torch.testing.assert_close(features, front_end(clip[None])[0], atol=1e-4, rtol=0)
        torch.testing.assert_close(features, ast_recipe(clip, FRAMES, **ESC50), atol=1e-4, rtol=0)


@pytest.mark.parametrize("augment", [None, lambda log_mel: log_mel + 1])
@pytest.mark.parametrize("with_lengths", [False, True])
def test_batches_of_any_size_are_their_clips(with_lengths: bool, augment: Callable[[Tensor], Tensor] | None) -> None:
    """On a CPU a batch is taken in parts, here 2 + 2 + 1."""
    waveform = torch.randn(5, 300_000)
    lengths = torch.tensor([300_000, 1000, 250_000, 120_000, 300]) if with_lengths else None
    front_end = FrontEnd(1900)
    alone = [
        front_end(waveform[i : i + 1], None if lengths is None else lengths[i : i + 1], augment)
        for i in range(len(waveform))
    ]
    torch.testing.assert_close(front_end(waveform, lengths, augment), torch.cat(alone), atol=1e-5, rtol=0)


def test_counts_frames_at_every_length() -> None:
    lengths = torch.arange(1, 2001)
    _, valid = FrontEnd(20).padded_log_mel(torch.randn(2000, 2000), lengths)
    assert valid.sum(1).tolist() == [len(range(400, n + 1, 160)) for n in range(1, 2001)]
    assert (valid[:, :-1] >= valid[:, 1:]).all()


def test_what_lies_beyond_a_clip_has_no_influence() -> None:
    front_end, lengths = FrontEnd(FRAMES), torch.tensor([700, 1300])
    waveform = torch.randn(2, 1300)
    expected = front_end(waveform, lengths)
    waveform[0, 700:] = float("nan")
    assert torch.equal(front_end(waveform, lengths), expected)


def test_augments_before_normalising() -> None:
    seen = []

    def erase(log_mel: Tensor) -> Tensor:
        seen.append(log_mel)
        return torch.zeros_like(log_mel)

    (clip,) = clips(1000)
    features = FrontEnd(FRAMES, mean=-4.0, std=2.0)(clip[None], augment=erase)
    assert (features == 1.0).all()  # (0 - mean) / (2 * std)
    torch.testing.assert_close(seen[0][0, :4], kaldi(clip).float(), atol=1e-3, rtol=0)
    assert (seen[0][0, 4:] == 0).all()


@pytest.mark.parametrize("sample_rate", [16000, 24000])
def test_samples_fill_the_frames(sample_rate: int) -> None:
    front_end = FrontEnd(FRAMES, sample_rate=sample_rate)
    _, valid = front_end.padded_log_mel(torch.randn(1, front_end.samples))
    assert valid.all()
    _, valid = front_end.padded_log_mel(torch.randn(1, front_end.samples - 1))
    assert valid.sum() == FRAMES - 1


def test_config_rebuilds_it() -> None:
    front_end = FrontEnd(6, mel_bins=40, sample_rate=8000, mean=-5.0, std=3.0)
    again = FrontEnd(**json.loads(json.dumps(front_end.config())))
    waveform = torch.randn(2, 900)
    assert torch.equal(again(waveform), front_end(waveform))
    assert again.config() == front_end.config()
    assert not front_end.state_dict()


def test_compiles_in_one_graph() -> None:
    front_end = FrontEnd(FRAMES)
    compiled = torch.compile(front_end, backend="eager", fullgraph=True, dynamic=True)
    for samples in (300, 1000, 2000):
        waveform = torch.randn(2, samples)
        assert torch.equal(compiled(waveform), front_end(waveform))


@pytest.mark.parametrize("with_lengths", [False, True])
def test_exports_to_onnx_with_any_batch_and_length(with_lengths: bool, tmp_path: Path) -> None:
    front_end, path = FrontEnd(FRAMES).eval(), tmp_path / "front_end.onnx"
    any_size = torch.export.Dim.DYNAMIC
    torch.onnx.export(
        front_end,
        (torch.zeros(2, 1000), torch.tensor([1000, 900]))[: 1 + with_lengths],
        path,
        input_names=["waveform", "lengths"][: 1 + with_lengths],
        dynamic_shapes=({0: any_size, 1: any_size}, {0: any_size})[: 1 + with_lengths],
        dynamo=True,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch, samples in [(1, 1000), (3, 1000), (2, 1), (2, 399), (2, 400), (3, 560), (1, 30000)]:
        waveform = torch.stack(clips(*[samples] * batch))
        lengths = torch.randint(1, samples + 1, (batch,)) if with_lengths else None
        inputs = {"waveform": waveform.numpy()} | ({} if lengths is None else {"lengths": lengths.numpy()})
        (result,) = session.run(None, inputs)
        np.testing.assert_allclose(result, front_end(waveform, lengths), atol=1e-4)


def test_measures_statistics_of_valid_frames() -> None:
    alone = clips(300, 700, 1900, 5000, 900)
    lengths = torch.tensor([len(clip) for clip in alone])
    padded = pad_sequence(alone, batch_first=True)
    batches = [(padded[:2], lengths[:2]), (padded[2:], lengths[2:]), (padded[4:, :900], None)]
    mean, std = measure_statistics(FrontEnd(FRAMES), batches)
    values = torch.cat([kaldi(clip)[:FRAMES].flatten() for clip in [*alone, alone[4]]])
    assert mean == pytest.approx(values.mean().item(), abs=1e-5)
    assert std == pytest.approx(values.std(correction=0).item(), abs=1e-5)


def test_measuring_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no clip is as long as one window"):
        measure_statistics(FrontEnd(FRAMES), [(torch.zeros(2, 399), None)])


def test_audioset_is_the_default() -> None:
    config = FrontEnd(FRAMES).config()
    assert (config["mean"], config["std"]) == STATISTICS["audioset"]


def test_takes_specaugment() -> None:
    features = FrontEnd(FRAMES, mean=-4.0, std=2.0)(torch.randn(64, 2000), augment=SpecAugment(24, 4))
    assert (features == 1.0).any(2).any(1).sum() > 32  # masked cells have the value of padding


@pytest.mark.parametrize(
    ("waveform", "lengths", "message"),
    [
        (torch.zeros(1000), None, r"got shape \[1000\]"),
        (torch.zeros(2, 1000, dtype=torch.int32), None, "floating-point"),
        (torch.zeros(2, 1000), torch.tensor([5]), r"each of 2 clips, int64 \[batch\], got torch.int64 \[1\]"),
        (torch.zeros(2, 1000), torch.tensor([[5], [6]]), r"got torch.int64 \[2, 1\]"),
        (torch.zeros(2, 1000), torch.tensor([0.5, 1.0]), "got torch.float32"),
    ],
)
def test_refuses_input(waveform: Tensor, lengths: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        FrontEnd(FRAMES)(waveform, lengths)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", FRONT_ENDS)
@pytest.mark.parametrize("options", [{"frames": 0}, {"frames": 4, "std": 0.0}, {"frames": 4, "std": float("nan")}])
def test_refuses_options(kind: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="frames is at least 1 and std is above 0"):
        FRONT_ENDS[kind](**options)
