"""What every front end has and answers."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from fastloaa.audio.logmel import as_waveform
from fastloaa.errors import ArgumentError


class SpectrogramFrontEnd(nn.Module, ABC):
    """Waveforms to the log-mel features of a fixed number of frames that a spectrogram transformer reads.

    A front end is a subclass with a name of its own in `kind`, a line in `fastloaa.audio.FRONT_ENDS`, and nothing else:
    models, recipes and exported files take it from there by its name. It has these arguments and no others, whatever
    defaults it gives them, and no entries in the state dict. Shapes follow from the arguments alone, so that it exports
    to ONNX.

    Args:
        frames: frames of the result.
        mel_bins: number of mel filters, on HTK's scale up to half the sample rate.
        sample_rate: in Hz.
        mean, std: the result is `(log_mel - mean) / (2 * std)`.

    Attributes:
        kind: its name in configurations, recipes and exported files.
        reads: "waveform", or "log_mel" where spectrograms come ready from files.
        frames_per_second: at any sample rate, as far as samples are whole.
        low_freq: Hz where its mel filters begin.
        decibels: of one unit of its logarithm: 10 / ln(10) of power, 20 / ln(10) of magnitudes.
        shift: samples from frame to frame.

    Raises:
        ArgumentError: frames < 1 or std <= 0.
    """

    kind: ClassVar[str]
    reads: ClassVar[Literal["waveform", "log_mel"]] = "waveform"
    frames_per_second: ClassVar[int]
    low_freq: ClassVar[float]
    decibels: ClassVar[float]
    shift: int

    def __init__(
        self, frames: int, mel_bins: int = 128, sample_rate: int = 16000, mean: float = 0.0, std: float = 0.5
    ) -> None:
        super().__init__()
        if frames < 1 or not std > 0:
            raise ArgumentError(f"frames is at least 1 and std is above 0, got frames={frames}, std={std}")
        self.frames, self.mel_bins, self.sample_rate, self.mean, self.std = frames, mel_bins, sample_rate, mean, std

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, ready for JSON: `FrontEnd(**front_end.config())` is the same front end."""
        return {
            "frames": self.frames,
            "mel_bins": self.mel_bins,
            "sample_rate": self.sample_rate,
            "mean": self.mean,
            "std": self.std,
        }

    @property
    def hop(self) -> float:
        """Seconds from frame to frame."""
        return self.shift / self.sample_rate

    @property
    def shortest(self) -> int:
        """Samples below which no frame is full: one analysis window; one step unless a front end says so.

        From 1 to `samples`. Exported files do not answer for less; training has such clips as padding.
        """
        return self.shift

    @property
    @abstractmethod
    def samples(self) -> int:
        """How many samples fill the frames: of a longer clip no more are heard."""

    def clip_shape(self, samples: int | None = None) -> tuple[int, ...]:
        """Shape of one clip of what it reads, with so many samples, or as many as fill the frames."""
        return (self.samples if samples is None else samples,)

    @abstractmethod
    def padded_log_mel(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The log-mel spectrogram before augmentation and normalisation, of what `forward` takes.

        Returns:
            log_mel: float32 `[batch, frames, mel_bins]`, padded where the clip is over.
            valid: bool `[batch, frames]`, False in the padding.
        """

    def forward(
        self,
        waveform: Tensor,
        lengths: Tensor | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Features of a batch.

        Args:
            waveform: `[batch, samples]`, floating point, full scale at ±1, or int16, any number of samples; numpy
                arrays and lists are taken as well.
            lengths: int64 `[batch]`, the valid samples of each clip, 1 <= lengths <= samples; what lies beyond has no
                influence. None: all are valid.
            augment: applied to the padded, not yet normalised log-mel spectrogram, e.g. a `SpecAugment`.

        Returns:
            float32 `[batch, frames, mel_bins]`; a clip shorter than one window is all padding.

        Raises:
            ArgumentError: another shape or dtype.
        """
        log_mel, _ = self.padded_log_mel(waveform, lengths)
        if augment is not None:
            log_mel = augment(log_mel)
        return (log_mel - self.mean) / (2 * self.std)


def as_clips(
    waveform: object, lengths: object = None, device: torch.device | None = None
) -> tuple[Tensor, Tensor | None]:
    """A batch of clips as tensors: `waveform` by `as_waveform`, and their lengths, int64 `[batch]` or None, beside it.

    Raises:
        ArgumentError: another shape or dtype of either.
    """
    waveform = as_waveform(waveform, device)
    if lengths is None:
        return waveform, None
    if not isinstance(lengths, Tensor):
        lengths = torch.as_tensor(lengths, device=waveform.device)
    if lengths.ndim != 1 or lengths.shape[0] != waveform.shape[0] or lengths.is_floating_point():
        raise ArgumentError(
            f"expected one length in samples for each of {waveform.shape[0]} clips, int64 [batch], "
            f"got {lengths.dtype} {list(lengths.shape)}"
        )
    return waveform, lengths


def clip_lengths(waveform: Tensor, lengths: Tensor | None) -> Tensor:
    """The valid samples of each clip of `waveform` `[batch, samples]`, int64 `[batch]`; None: all."""
    if lengths is None:
        batch, samples = waveform.shape
        return torch.full((batch,), samples, dtype=torch.int64, device=waveform.device)
    return lengths
