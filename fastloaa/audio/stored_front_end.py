"""The front end of models that read stored log-mel spectrograms."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fastloaa.audio.base import SpectrogramFrontEnd
from fastloaa.audio.logmel import as_numbers
from fastloaa.errors import ArgumentError

LOG_MEL_RATE = 100
"""Frames a second that stored spectrograms are taken to have, since their files do not say; for times alone."""


class StoredLogMel(SpectrogramFrontEnd):
    """What stands in a front end's place where log-mel spectrograms come from files, of whatever kind they are.

    Its "waveforms" are spectrograms `[batch, frames, mel_bins]`, its "samples" are frames, and its rate is
    `LOG_MEL_RATE`. They are cut or padded at the end to `frames` and normalised. Zero means nothing in features of
    another scale, so the padding, and what `augment` covers with zeros, is the data set's mean.

    Args:
        frames, mel_bins: of the result.
        sample_rate: frames a second.
        mean, std: of the data set's values; the result is `(log_mel - mean) / (2 * std)`.

    Raises:
        ArgumentError: frames < 1 or std <= 0.
    """

    kind = "log-mel"
    _place: Tensor
    reads = "log_mel"
    frames_per_second = LOG_MEL_RATE
    low_freq = 0.0
    decibels = 10 / math.log(10)
    shift = 1

    def __init__(
        self, frames: int, mel_bins: int = 128, sample_rate: int = LOG_MEL_RATE, mean: float = 0.0, std: float = 0.5
    ) -> None:
        super().__init__(frames, mel_bins, sample_rate, mean, std)
        self.register_buffer("_place", torch.zeros(()), persistent=False)  # the device that spectrograms go to

    @property
    def samples(self) -> int:
        return self.frames

    def clip_shape(self, samples: int | None = None) -> tuple[int, ...]:
        return (self.samples if samples is None else samples, self.mel_bins)

    def padded_log_mel(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `SpectrogramFrontEnd.padded_log_mel`; the padding is `mean`.

        Args:
            waveform: `[batch, any frames, mel_bins]`, floating point.
            lengths: int64 `[batch]`, the valid frames of each clip.

        Raises:
            ArgumentError: another shape or dtype.
        """
        log_mel = as_numbers(waveform, "log-mels [batch, frames, mel_bins]").to(self._place.device)
        if log_mel.ndim != 3 or log_mel.shape[2] != self.mel_bins or not log_mel.is_floating_point():
            raise ArgumentError(
                f"expected log-mels [batch, frames, mel_bins={self.mel_bins}], floating point, got {log_mel.dtype} "
                f"{list(log_mel.shape)}; the model was trained on spectrograms from files, not on waveforms"
            )
        log_mel = log_mel.float()
        count = torch.full(log_mel.shape[:1], log_mel.shape[1], device=log_mel.device) if lengths is None else lengths
        log_mel = F.pad(log_mel, (0, 0, 0, max(self.frames - log_mel.shape[1], 0)))[:, : self.frames]
        valid = torch.arange(self.frames, device=log_mel.device) < count[:, None]
        return torch.where(valid[..., None], log_mel, self.mean), valid

    def forward(
        self,
        waveform: Tensor,
        lengths: Tensor | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """See `SpectrogramFrontEnd.forward`; what is augmented has a mean of zero."""
        log_mel, _ = self.padded_log_mel(waveform, lengths)
        centred = log_mel - self.mean
        return (centred if augment is None else augment(centred)) / (2 * self.std)
