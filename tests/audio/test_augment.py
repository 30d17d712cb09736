"""Augmentations against what they promise: bounds, distributions, and a matrix that replays a mixture."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastloaa.audio import FrontEnd, SpecAugment, mixup, noise_and_roll


def run(mask: Tensor) -> tuple[int, int]:
    """Begin and end of the True run in a bool `[n]`, (0, 0) without one; fails on two runs."""
    places = mask.nonzero().flatten().tolist()
    if not places:
        return 0, 0
    assert places == list(range(places[0], places[-1] + 1))
    return places[0], places[-1] + 1


@settings(max_examples=50)
@given(
    batch=st.integers(1, 6),
    frames=st.integers(1, 40),
    mel_bins=st.integers(1, 40),
    freq_mask=st.integers(0, 60),
    time_mask=st.integers(0, 60),
)
def test_masks_one_band_and_one_stretch(batch: int, frames: int, mel_bins: int, freq_mask: int, time_mask: int) -> None:
    log_mel = torch.rand(batch, frames, mel_bins) + 1
    before = log_mel.clone()
    masked = SpecAugment(freq_mask, time_mask)(log_mel)
    assert torch.equal(log_mel, before)
    for clip, original in zip(masked, log_mel, strict=True):
        hidden = clip == 0
        assert torch.equal(clip[~hidden], original[~hidden])
        band, stretch = hidden.all(0), hidden.all(1)
        assert torch.equal(hidden, band | stretch[:, None])
        (low, high), (begin, end) = run(band), run(stretch)
        assert high - low <= max(min(freq_mask, mel_bins) - 1, 0)
        assert end - begin <= max(min(time_mask, frames) - 1, 0)


def test_mask_widths_are_uniform_and_places_cover_the_axis() -> None:
    hidden = SpecAugment(0, 8)(torch.ones(8000, 20, 4))[..., 0] == 0  # [clips, frames]
    counts = torch.bincount(hidden.sum(1), minlength=8)
    assert len(counts) == 8  # widths 0 to 7
    assert ((counts - 1000).abs() < 5 * 1000**0.5).all()
    share = hidden.float().mean(0)  # of the clips that hide a frame
    assert share[:-1].min() > 0.02  # torchaudio's masks stop short of the last frame
    assert share[7:13].max() - share[7:13].min() < 0.03


def test_several_masks_cover_more_and_the_mean_fills_them() -> None:
    log_mel = torch.randn(200, 50, 40) - 10
    masked = SpecAugment(10, 12, masks=2, fill="mean")(log_mel)
    hidden = masked != log_mel
    assert torch.allclose(masked, torch.where(hidden, log_mel.mean((1, 2), keepdim=True), log_mel))
    # Widths are 0 to 9 and 0 to 11; two bands or stretches that do not overlap can be seen as two runs.
    bands, stretches = hidden.all(1).sum(1), hidden.all(2).sum(1)
    assert 9 < bands.max() <= 18
    assert 11 < stretches.max() <= 22
    assert abs(bands.float().mean() - 2 * 4.5 * 0.95) < 1  # of two masks, a tenth of one falls on the other


def test_masks_repeat_under_a_seed() -> None:
    log_mel, augment = torch.ones(8, 50, 40), SpecAugment(10, 20)
    torch.manual_seed(3)
    first = augment(log_mel)
    other = augment(log_mel)
    torch.manual_seed(3)
    assert torch.equal(augment(log_mel), first)
    assert not torch.equal(other, first)


def test_refuses_negative_masks() -> None:
    with pytest.raises(ValueError, match="mask widths are >= 0"):
        SpecAugment(-1, 4)


def centred(waveform: Tensor, lengths: Tensor) -> Tensor:
    """Each clip minus its own mean, zeros after its end, clip by clip."""
    result = torch.zeros_like(waveform)
    for clip, out, length in zip(waveform, result, lengths.tolist(), strict=True):
        out[:length] = clip[:length] - clip[:length].mean()
    return result


@settings(max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=8),
    probability=st.floats(0, 1),
    alpha=st.floats(0.2, 20),
)
def test_mixes_waveforms_as_it_mixes_targets(lengths: list[int], probability: float, alpha: float) -> None:
    """With one class per clip the mixed targets are the matrix of the mixture."""
    batch, valid = len(lengths), torch.tensor(lengths)
    waveform, targets = torch.randn(batch, 50) + 1, torch.eye(batch)
    kept = waveform.clone()
    mixed, matrix = mixup(waveform, targets, alpha=alpha, probability=probability, lengths=valid)
    inside = torch.arange(50) < valid[:, None]
    torch.testing.assert_close(mixed, matrix @ centred(waveform, valid) * inside)
    torch.testing.assert_close(matrix.sum(1), torch.ones(batch))
    assert (matrix >= 0).all()
    assert ((matrix > 0).sum(1) <= 2).all()
    assert torch.equal(waveform, kept)
    assert torch.equal(targets, torch.eye(batch))


def test_mixing_keeps_the_sum_of_each_target() -> None:
    targets = torch.stack([torch.randperm(10) < 3 for _ in range(16)]).float()  # three labels each
    _, mixed = mixup(torch.randn(16, 100), targets)
    torch.testing.assert_close(mixed.sum(1), torch.full((16,), 3.0))
    assert not torch.equal(mixed, targets)


def test_ratios_follow_the_beta_distribution() -> None:
    _, matrix = mixup(torch.randn(4000, 2), torch.eye(4000), alpha=10.0)
    ratio = matrix.diagonal()
    ratio = ratio[ratio < 1]  # 1: its own partner
    assert len(ratio) > 3980
    assert abs(ratio.mean() - 0.5) < 5 * (1 / 84 / 4000) ** 0.5
    assert ratio.var() == pytest.approx(1 / 84, rel=0.15)  # 1 / (4 * (2 * alpha + 1))


@pytest.mark.parametrize("probability", [0.0, 0.6, 1.0])
def test_mixes_as_often_as_asked(probability: float) -> None:
    _, matrix = mixup(torch.randn(4000, 2), torch.eye(4000), probability=probability)
    mixed = (matrix.diagonal() < 1).float().mean()
    assert abs(mixed - probability) <= 5 * (probability * (1 - probability) / 4000) ** 0.5 + 0.005


def test_an_unmixed_clip_keeps_its_features() -> None:
    waveform, lengths = torch.randn(3, 3000) + 0.3, torch.tensor([3000, 100, 1234])
    mixed, targets = mixup(waveform, torch.eye(3), probability=0.0, lengths=lengths)
    front_end = FrontEnd(20)
    torch.testing.assert_close(front_end(mixed, lengths), front_end(waveform, lengths), atol=1e-4, rtol=0)
    assert torch.equal(targets, torch.eye(3))


@pytest.mark.parametrize(
    ("targets", "options", "message"),
    [
        (torch.tensor([1, 0]), {}, r"float targets \[batch, classes\] for 2 clips, got torch.int64 \[2\]"),
        (torch.ones(3, 4), {}, r"for 2 clips, got torch.float32 \[3, 4\]"),
        (torch.ones(2, 4), {"alpha": 0.0}, "alpha is above 0"),
        (torch.ones(2, 4), {"probability": 1.1}, "probability from 0 to 1"),
    ],
)
def test_mixup_refuses(targets: Tensor, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mixup(torch.zeros(2, 10), targets, **options)


def test_noise_and_roll() -> None:
    frames = 64
    steps = 1000.0 * torch.arange(frames)  # the noise stays far below one step
    log_mel = steps[None, :, None].repeat(2000, 1, 3).double()
    before = log_mel.clone()
    result = noise_and_roll(log_mel)
    assert torch.equal(log_mel, before)
    shifts, levels = [], []
    for clip in result:
        shift = int((clip[:, 0] / 1000).round().argmin())  # frame 0 lands here
        shift = shift - frames if shift > frames // 2 else shift
        noise = clip - torch.roll(before[0], shift, 0)
        assert noise.min() >= 0
        shifts.append(shift)
        levels.append(noise.max().item())
    assert set(shifts) == set(range(-10, 10))
    assert max(levels) <= 0.1
    assert min(levels) < 0.01
    assert sum(levels) / len(levels) == pytest.approx(0.05, abs=0.005)


def test_nothing_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device whatever reads a value back, or strays to another device, fails."""
    monkeypatch.setattr(torch, "_sample_dirichlet", torch.rand_like)  # the one operation without a meta kernel
    with torch.device("meta"):
        log_mel, waveform, targets = torch.zeros(4, 64, 32), torch.zeros(4, 500), torch.zeros(4, 5)
        lengths = torch.zeros(4, dtype=torch.int64)
    assert SpecAugment(8, 8)(log_mel).is_meta
    assert noise_and_roll(log_mel).is_meta
    assert all(tensor.is_meta for tensor in mixup(waveform, targets, lengths=lengths))


@pytest.mark.parametrize("options", [{"masks": 0}, {"fill": "one"}])
def test_refuses_no_masks_and_other_fills(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r'^masks is at least 1 and fill is "zero" or "mean", got '):
        SpecAugment(4, 4, **options)


@pytest.mark.parametrize(
    "augment", [SpecAugment(10, 12, masks=2), noise_and_roll], ids=["SpecAugment", "noise_and_roll"]
)
def test_a_share_of_a_batch_is_augmented_as_in_the_whole(augment: Callable[..., Tensor]) -> None:
    log_mel = torch.randn(7, 40, 32)
    torch.manual_seed(5)
    whole = augment(log_mel)
    state = torch.get_rng_state()
    for first, last in ((0, 3), (3, 4), (4, 4), (4, 7)):
        torch.manual_seed(5)
        assert torch.equal(augment(log_mel[first:last], first=first, total=7), whole[first:last])
        assert torch.equal(torch.get_rng_state(), state)  # what is drawn next is the same too
