"""AST's augmentations, drawn for each clip of a batch on the batch's device.

All randomness is torch's own for that device: the same seed gives the same draws. None changes its input.

Several processes that share a batch draw what one would: with `first` and `total`, the clips are those from number
`first` on of a batch of `total`.
"""

from fastloaa.extras import needs

needs("torchaudio")

from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Beta
from torchaudio.functional import mask_along_axis_iid

from fastloaa.audio.base import as_clips, clip_lengths
from fastloaa.audio.frontend import remove_mean
from fastloaa.errors import ArgumentError


class SpecAugment(nn.Module):
    """Cover bands of mel bins and stretches of frames of each clip (Park et al., Interspeech 2019).

    With zeros on the log-mel scale before normalisation, as AST does, or with the clip's mean, as the baselines of
    EPIC-SOUNDS do. Like torchaudio's transforms it acts in training and evaluation mode alike: leave it out to
    evaluate.

    Args:
        freq_mask, time_mask: a mask's width is uniform in 0, 1, ..., this - 1 mel bins or frames, at most what
            the spectrogram has; 0 switches the mask off. Torchaudio's masks, so AST's, never reach the last one.
        masks: how many of each kind; 1 for AST, 2 for EPIC-SOUNDS (with 27 bins and 25 frames).
        fill: "zero" or "mean".

    Raises:
        ArgumentError: a negative width, no mask, or another fill.
    """

    def __init__(self, freq_mask: int, time_mask: int, masks: int = 1, fill: Literal["zero", "mean"] = "zero") -> None:
        super().__init__()
        if freq_mask < 0 or time_mask < 0:
            raise ArgumentError(f"mask widths are >= 0, got freq_mask={freq_mask}, time_mask={time_mask}")
        if masks < 1 or fill not in ("zero", "mean"):
            raise ArgumentError(f'masks is at least 1 and fill is "zero" or "mean", got masks={masks}, fill={fill!r}')
        self.freq_mask, self.time_mask, self.masks, self.fill = freq_mask, time_mask, masks, fill

    def forward(self, log_mel: Tensor, first: int = 0, total: int | None = None) -> Tensor:
        """`[batch, frames, mel_bins]` -> the same shape.

        Raises:
            ArgumentError: another shape or dtype.
        """
        log_mel = _as_features(log_mel)
        batch, frames, mel_bins = log_mel.shape
        total = batch if total is None else total
        bins, times = log_mel.new_ones(total, 1, mel_bins), log_mel.new_ones(total, frames, 1)
        for _ in range(self.masks):
            # torchaudio does not bound the width by the axis and would erase the whole clip most of the time.
            bins = mask_along_axis_iid(bins, min(self.freq_mask, mel_bins), 0.0, axis=2)
            times = mask_along_axis_iid(times, min(self.time_mask, frames), 0.0, axis=1)
        cover = log_mel.mean((1, 2), keepdim=True) if self.fill == "mean" else torch.zeros_like(log_mel[:, :1, :1])
        own = slice(first, first + batch)
        return torch.where((bins[own] > 0) & (times[own] > 0), log_mel, cover)

    def extra_repr(self) -> str:
        return f"freq_mask={self.freq_mask}, time_mask={self.time_mask}, masks={self.masks}, fill={self.fill!r}"


def mixup(
    waveform: Tensor,
    targets: Tensor,
    alpha: float = 10.0,
    probability: float = 1.0,
    lengths: Tensor | None = None,
    silence: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Mix each clip with another of the batch: `λ * clip + (1 - λ) * partner`, λ ~ Beta(alpha, alpha), as AST does.

    The clips' means are removed first. A partner comes from a random permutation (AST draws it from the whole
    dataset) and is cut, or padded with `silence`, to the clip it is mixed into: every clip keeps its length.

    Args:
        waveform: `[batch, samples]`, floating point; or spectrograms `[batch, frames, mel_bins]`, which keep their
            means, with frames for samples.
        targets: `[batch, classes]`, floating point, e.g. one-hot.
        alpha: of the Beta distribution; AST takes 10, near equal parts.
        probability: of a clip to be mixed at all; Speech Commands takes 0.6.
        lengths: int64 `[batch]`, valid samples of each clip; None: all.
        silence: what follows on the end of a spectrogram.

    Returns:
        The mixed waveform, float32 of the same shape, zeros beyond each length, and the mixed targets.

    Raises:
        ArgumentError: another shape or dtype, alpha <= 0, or a probability outside 0 to 1.
    """
    spectrograms = isinstance(waveform, Tensor) and waveform.ndim == 3
    if spectrograms:
        count = clip_lengths(waveform[..., 0], lengths)
    else:
        waveform, lengths = as_clips(waveform, lengths)
    targets = torch.as_tensor(targets, device=waveform.device)
    if targets.ndim != 2 or len(targets) != len(waveform) or not targets.is_floating_point():
        raise ArgumentError(
            f"expected float targets [batch, classes] for {len(waveform)} clips, got {targets.dtype} "
            f"{list(targets.shape)}; class numbers become one-hot with torch.nn.functional.one_hot(...).float()"
        )
    if not alpha > 0 or not 0 <= probability <= 1:
        raise ArgumentError(f"alpha is above 0 and probability from 0 to 1, got {alpha} and {probability}")
    if not spectrograms:
        waveform, count = remove_mean(waveform, lengths)
    batch, samples = waveform.shape[:2]
    concentration = torch.full((batch,), alpha, device=waveform.device)
    ratio = Beta(concentration, concentration, validate_args=False).sample()  # validation would wait for the device
    mixed = torch.rand(batch, device=waveform.device) < probability
    ratio = torch.where(mixed, ratio, 1.0)[:, None]
    partner = torch.randperm(batch, device=waveform.device)
    inside = torch.arange(samples, device=waveform.device) < count[:, None]
    if spectrograms:
        inside, share = inside[..., None], ratio[..., None]
        other = torch.where(inside[partner], waveform[partner], silence)
        waveform = torch.where(inside, share * waveform + (1 - share) * other, 0.0)
    else:
        waveform = ratio * waveform + (1 - ratio) * waveform[partner] * inside
    return waveform, ratio * targets + (1 - ratio) * targets[partner]


def noise_and_roll(log_mel: Tensor, first: int = 0, total: int | None = None) -> Tensor:
    """Add uniform noise of a random level and shift in time, as AST does for Speech Commands.

    For NORMALISED features, after `FrontEnd`: noise in 0 to level, level uniform in 0 to 0.1 for each clip; then a
    circular shift by -10 to 9 frames.

    Args:
        log_mel: `[batch, frames, mel_bins]`.

    Returns:
        The same shape and dtype.

    Raises:
        ArgumentError: another shape or dtype.
    """
    log_mel = _as_features(log_mel)
    batch, frames, mel_bins = log_mel.shape
    total, own = batch if total is None else total, slice(first, first + batch)
    everyone = log_mel.new_empty(total, frames, mel_bins)
    level = torch.rand_like(everyone[:, :1, :1])[own] / 10
    noisy = log_mel + everyone.uniform_()[own] * level
    shift = torch.randint(-10, 10, (total, 1), device=log_mel.device)[own]
    source = (torch.arange(frames, device=log_mel.device) - shift) % frames  # [batch, frames]
    return noisy.gather(1, source[..., None].expand_as(noisy))


def _as_features(log_mel: Tensor) -> Tensor:
    log_mel = torch.as_tensor(log_mel)
    if log_mel.ndim != 3 or not log_mel.is_floating_point():
        raise ArgumentError(
            f"expected floating-point features [batch, frames, mel_bins], got {log_mel.dtype} {list(log_mel.shape)}; "
            "those of a single clip are features[None]"
        )
    return log_mel
