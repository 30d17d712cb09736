"""Waveforms to what a spectrogram transformer reads, by AST's recipe."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastloaa.audio.logmel import LogMel, as_waveform
from fastloaa.errors import ArgumentError
from fastloaa.ops.tracing import exporting

STATISTICS: dict[str, tuple[float, float]] = {
    "audioset": (-4.2677393, 4.5689974),
    "esc50": (-6.6268077, 5.358466),
    "speechcommands": (-6.845978, 5.5654526),
}
"""(mean, std) of the log-mel spectrograms of AST's datasets, 16 kHz and 128 mel bins, from AST's recipes."""
PART = 640_000  # samples at a time on a CPU: four clips of ten seconds


class HasLogMel(Protocol):
    """A front end of any kind."""

    def padded_log_mel(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `FrontEnd.padded_log_mel`."""
        ...


class FrontEnd(nn.Module):
    """Log-mel features of a fixed number of frames, as AST prepares them, on whatever device the waveform is.

    Per clip: subtract the waveform's mean, `LogMel`, cut or zero-pad at the end to `frames`, augment, then
    `(x - mean) / (2 * std)`. All shapes follow from the arguments alone, so it compiles and exports to ONNX with any
    batch and any number of samples. No entries in the state dict.

    Args:
        frames: frames of the result; one takes 25 ms and the next begins 10 ms later.
        mel_bins, sample_rate: see `LogMel`.
        mean, std: of the dataset's log-mel values, see `STATISTICS` and `measure_statistics`; AudioSet's by default.

    Raises:
        ArgumentError: frames < 1 or std <= 0, or what `LogMel` refuses.

    Source: `dataloader.py` of AST (Gong et al., Interspeech 2021).
    """

    kind = "ast"
    frames_per_second = 100

    def __init__(
        self,
        frames: int,
        mel_bins: int = 128,
        sample_rate: int = 16000,
        mean: float = STATISTICS["audioset"][0],
        std: float = STATISTICS["audioset"][1],
    ) -> None:
        super().__init__()
        if frames < 1 or not std > 0:
            raise ArgumentError(f"frames is at least 1 and std is above 0, got frames={frames}, std={std}")
        self.frames, self.mel_bins, self.sample_rate, self.mean, self.std = frames, mel_bins, sample_rate, mean, std
        self.log_mel = LogMel(sample_rate, mel_bins)

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
    def samples(self) -> int:
        """How many samples fill the frames; what a clip has beyond them only counts towards its mean."""
        return self.log_mel.window + self.log_mel.shift * (self.frames - 1)

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
        waveform, lengths = as_clips(waveform, lengths, self.log_mel.mel.device)
        if augment is not None:
            log_mel, _ = self.padded_log_mel(waveform, lengths)
            return (augment(log_mel) - self.mean).div_(2 * self.std)
        parts = (self._padded(*part)[0] for part in _parts(waveform, lengths))
        return _joined([log_mel.sub_(self.mean).div_(2 * self.std) for log_mel in parts])

    def padded_log_mel(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The log-mel spectrogram before augmentation and normalisation.

        Returns:
            log_mel: float32 `[batch, frames, mel_bins]`, zeros in the padding.
            valid: bool `[batch, frames]`, False in the padding.
        """
        waveform, lengths = as_clips(waveform, lengths, self.log_mel.mel.device)
        log_mels, valid = zip(*(self._padded(*part) for part in _parts(waveform, lengths)), strict=True)
        return _joined(log_mels), _joined(valid)

    def _padded(self, waveform: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """`padded_log_mel` of a part of the batch."""
        # Each frame loses its own mean later; without the clip's, what follows has no large offset to cancel and rounds
        # a thousand times less.
        all_valid = lengths is None
        waveform, lengths = remove_mean(waveform, lengths)
        log_mel = self.log_mel(self._cut_or_pad(waveform))
        count = (lengths - self.log_mel.window) // self.log_mel.shift + 1  # below 1: none
        valid = torch.arange(self.frames, device=waveform.device) < count[:, None]
        if all_valid and not exporting():  # the same padding in all clips: no pass over what is none
            frames = (waveform.shape[1] - self.log_mel.window) // self.log_mel.shift + 1
            log_mel[:, max(frames, 0) :] = 0.0
            return log_mel, valid
        return torch.where(valid[..., None], log_mel, 0.0), valid

    def _cut_or_pad(self, waveform: Tensor) -> Tensor:
        """[batch, samples] -> [batch, self.samples]."""
        if exporting():  # padding by a fixed amount keeps the shapes independent of the clip
            return F.pad(waveform, (0, self.samples))[:, : self.samples]
        missing = self.samples - waveform.shape[1]
        return F.pad(waveform, (0, missing)) if missing > 0 else waveform[:, : self.samples]


def _parts(waveform: Tensor, lengths: Tensor | None) -> Iterable[tuple[Tensor, Tensor | None]]:
    """The batch as it is, or on a CPU a few clips at a time: what a step writes is then in the cache for the next."""
    if waveform.device.type != "cpu" or exporting() or torch.compiler.is_compiling():
        return [(waveform, lengths)]
    clips = max(PART // waveform.shape[1], 1)
    waveforms = waveform.split(clips)
    return zip(waveforms, [None] * len(waveforms) if lengths is None else lengths.split(clips), strict=True)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts)) if len(parts) > 1 else parts[0]


def remove_mean(waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Subtract from each clip the mean of its valid samples; what lies beyond them becomes zero.

    Args:
        waveform: `[batch, samples]`, floating point.
        lengths: int64 `[batch]`, valid samples of each clip; None: all.

    Returns:
        The waveform, float32 `[batch, samples]`, and the lengths, int64 `[batch]`.

    Raises:
        ArgumentError: another shape or dtype.
    """
    waveform, lengths = as_clips(waveform, lengths)
    all_valid = lengths is None
    lengths = clip_lengths(waveform, lengths)
    waveform = waveform.float()
    if all_valid:
        return waveform - waveform.mean(1, keepdim=True), lengths
    valid = torch.arange(waveform.shape[1], device=waveform.device) < lengths[:, None]
    mean = torch.where(valid, waveform, 0.0).sum(1) / lengths
    return torch.where(valid, waveform - mean[:, None], 0.0), lengths


def clip_lengths(waveform: Tensor, lengths: Tensor | None) -> Tensor:
    """The valid samples of each clip of `waveform` `[batch, samples]`, int64 `[batch]`; None: all."""
    if lengths is None:
        batch, samples = waveform.shape
        return torch.full((batch,), samples, dtype=torch.int64, device=waveform.device)
    return lengths


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


@torch.no_grad()
def measure_statistics(front_end: HasLogMel, waveforms: Iterable[tuple[Tensor, Tensor | None]]) -> tuple[float, float]:
    """Mean and standard deviation of a dataset's log-mel values, the `mean` and `std` of a `FrontEnd`.

    Args:
        front_end: gives frames, mel bins and rate; its own mean and std are not used.
        waveforms: batches (waveform, lengths) as `FrontEnd` takes them. Only valid frames count, cut to `frames`.

    Raises:
        ArgumentError: no clip is as long as one window.
    """
    count, total, squares = 0, 0.0, 0.0
    for waveform, lengths in waveforms:
        log_mel, valid = front_end.padded_log_mel(waveform, lengths)
        values = log_mel[valid].cpu().double()  # sums of millions of values
        count += values.numel()
        total += values.sum().item()
        squares += values.square().sum().item()
    if not count:
        raise ArgumentError("no clip is as long as one window, expected at least one; check the recordings")
    mean = total / count
    return mean, max(squares / count - mean**2, 0.0) ** 0.5
