"""LogMel against torchaudio's port of Kaldi's fbank, in float32 and float64."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchaudio.compliance.kaldi import fbank

from fastloaa.audio import LogMel

DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()
QUIET = -12.0  # log power below which rounding decides; silence is at -15.94


def kaldi(waveform: Tensor, sample_rate: int = 16000, mel_bins: int = 128, **options: float) -> Tensor:
    """`[batch, frames, mel_bins]` clip by clip, called as AST calls it."""
    clips = [
        fbank(
            clip[None],
            htk_compat=True,
            sample_frequency=sample_rate,
            use_energy=False,
            window_type="hanning",
            num_mel_bins=mel_bins,
            dither=0.0,
            **{"frame_shift": 10, **options},
        )
        for clip in waveform
    ]
    return torch.stack(clips)


def signals(samples: int, rate: int) -> dict[str, Tensor]:
    """Six kinds of sound, each `[samples]`."""
    time = torch.arange(samples, dtype=torch.float64) / rate
    sweep = torch.sin(2 * math.pi * (60 * time + (rate / 4 - 60) / (2 * samples / rate) * time**2))
    clicks = torch.zeros(samples, dtype=torch.float64)
    clicks[:: rate // 9] = 0.8
    # A voice: a pulse train of wandering pitch through three formants, in syllables, over breath noise.
    phase = torch.cumsum((120 + 25 * torch.sin(2 * math.pi * 1.7 * time)) / rate, 0)
    voice = torch.zeros(samples, dtype=torch.float64)
    for harmonic in range(1, 30):
        hertz = 120 * harmonic
        gain = sum(math.exp(-(((hertz - formant) / 150) ** 2)) for formant in (600, 1300, 2600)) + 0.01
        voice += gain * torch.sin(2 * math.pi * harmonic * phase)
    voice *= 0.1 * torch.sin(2 * math.pi * 2.1 * time).clamp(min=0)
    noise = torch.randn(samples, dtype=torch.float64)
    return {
        "noise": 0.1 * noise,
        "quiet noise": 1e-3 * noise,
        "sweep": 0.9 * sweep + 1e-3 * noise,
        "clicks": clicks,
        "offset": 0.5 + 0.01 * noise,
        "voice": voice + 2e-4 * noise,
    }


def error(log_mel: Tensor, exact: Tensor) -> Tensor:
    """Largest difference in each clip, where there is something to hear: `[batch]`."""
    return torch.where(exact > QUIET, (log_mel - exact).abs(), 0.0).amax((1, 2))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rate", [16000, 24000])
@pytest.mark.parametrize("extra", [0, 1, 159, 16001, 43210])
def test_equals_kaldi(rate: int, extra: int, device: str) -> None:
    log_mel = LogMel(rate).to(device)
    batch = torch.stack(list(signals(log_mel.window + extra, rate).values()))
    result = log_mel(batch.float().to(device)).cpu()
    single, exact = kaldi(batch.float(), rate), kaldi(batch, rate)
    assert result.shape == (6, extra // log_mel.shift + 1, 128)
    assert result.dtype == torch.float32
    assert (exact > QUIET).any()
    assert (result - single)[exact > QUIET].abs().max() <= 5e-3
    # 90 dB below a loud tone Kaldi's own float32 loses more than 2e-3; we may lose twice what it loses.
    assert (error(result, exact) <= (2 * error(single, exact)).clamp(min=2e-3)).all()


def test_what_is_exported_equals_what_runs() -> None:
    """By a convolution, and by an FFT."""
    log_mel = LogMel()
    waveform = torch.stack(list(signals(20000, 16000).values())).float()
    program = torch.export.export(log_mel, (waveform,))
    by_fft, by_convolution = log_mel(waveform), program.module()(waveform)
    loud = by_convolution > QUIET
    assert (by_fft - by_convolution)[loud].abs().max() <= 5e-3


@pytest.mark.parametrize(("clips", "seconds"), [(2, 23), (3, 10), (25, 1)])
def test_batches_of_any_size_are_their_clips(clips: int, seconds: int) -> None:
    """On a CPU a batch is taken in parts: here clip by clip, and 10 + 10 + 5."""
    waveform = 0.1 * torch.randn(clips, seconds * 16000)
    log_mel = LogMel()
    alone = torch.cat([log_mel(clip[None]) for clip in waveform])
    torch.testing.assert_close(log_mel(waveform), alone, atol=1e-5, rtol=0)
    assert log_mel(waveform[:0]).shape == (0, *alone.shape[1:])


def test_gradient_equals_kaldis() -> None:
    waveform = (0.1 * torch.randn(2, 3000, dtype=torch.float64)).requires_grad_()
    weight = torch.randn(2, 17, 128)
    (expected,) = torch.autograd.grad((kaldi(waveform) * weight).sum(), waveform)
    (given,) = torch.autograd.grad((LogMel()(waveform) * weight).sum(), waveform)
    assert (given - expected).norm() <= 1e-4 * expected.norm()


def test_compiles_to_what_runs_without() -> None:
    """Not to the convolution, which a GPU would run in TF32."""
    log_mel, waveform = LogMel(), 0.1 * torch.randn(2, 4000)
    compiled = torch.compile(log_mel, backend="eager", fullgraph=True)
    assert torch.equal(compiled(waveform), log_mel(waveform))


@settings(max_examples=25)
@given(
    rate=st.sampled_from([8000, 11025, 16000, 22050, 44100]),
    mel_bins=st.integers(4, 160),
    length=st.floats(5, 40),
    shift=st.floats(1, 20),
    low=st.floats(0, 300),
    high=st.floats(-900, 3900),
)
def test_options_mean_what_kaldis_mean(
    rate: int, mel_bins: int, length: float, shift: float, low: float, high: float
) -> None:
    high = high if high <= 0 else max(high, low + 100)
    options = {"frame_length": length, "frame_shift": shift, "low_freq": low, "high_freq": high}
    log_mel = LogMel(rate, mel_bins, frame_length_ms=length, frame_shift_ms=shift, low_freq=low, high_freq=high)
    waveform = 0.1 * torch.randn(2, 3000, dtype=torch.float64)
    exact, single = kaldi(waveform, rate, mel_bins, **options), kaldi(waveform.float(), rate, mel_bins, **options)
    assert error(log_mel(waveform), exact).max() <= max(2e-3, 2 * error(single, exact).max())


def test_silence_is_the_floor() -> None:
    assert (LogMel()(torch.zeros(1, 1600)) == math.log(2.0**-23)).all()


def test_stays_float32() -> None:
    waveform = 0.1 * torch.randn(2, 4000)
    expected = LogMel()(waveform)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(LogMel()(waveform), expected)
    assert torch.equal(LogMel().bfloat16()(waveform), expected)
    assert torch.equal(LogMel().double()(waveform.double()), expected)


def test_leaves_no_trace_in_the_state_dict() -> None:
    assert not LogMel().state_dict()


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (torch.zeros(16000), r"expected a waveform \[batch, samples\], got shape \[16000\]"),
        (torch.zeros(2, 1, 16000), r"got shape \[2, 1, 16000\]"),
        (torch.zeros(2, 0), r"got shape \[2, 0\]"),
        (torch.zeros(2, 16000, dtype=torch.int32), "floating-point waveform.*torch.int32"),
        (torch.zeros(2, 399), "399 samples is shorter than one window of 400"),
    ],
)
def test_refuses_waveforms(waveform: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        LogMel()(waveform)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"mel_bins": 3},
        {"low_freq": -1.0},
        {"high_freq": 8001.0},
        {"low_freq": 500.0, "high_freq": 400.0},
        {"high_freq": -8000.0},
        {"frame_length_ms": 0.0},
        {"frame_shift_ms": 0.0},
        {"sample_rate": 0},
    ],
)
def test_refuses_options(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected|at least") as caught:
        LogMel(**options)
    assert "\n" not in str(caught.value)


def test_exports_to_plain_onnx(tmp_path: Path) -> None:
    path = tmp_path / "logmel.onnx"
    dynamic = {0: torch.export.Dim("batch"), 1: torch.export.Dim("samples", min=400)}
    torch.onnx.export(
        LogMel().eval(), (torch.zeros(2, 800),), path, dynamic_shapes=(dynamic,), dynamo=True, verbose=False
    )
    assert not {node.op_type for node in onnx.load(path).graph.node} & {
        "DFT",
        "STFT",
        "MelWeightMatrix",
        "Loop",
        "Scan",
    }
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch, samples in [(1, 400), (3, 5000), (2, 801)]:
        waveform = 0.1 * torch.randn(batch, samples)
        (result,) = session.run(None, {session.get_inputs()[0].name: waveform.numpy()})
        np.testing.assert_allclose(result, LogMel()(waveform), atol=1e-3)
