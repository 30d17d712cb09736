"""Waveforms to what a spectrogram transformer reads, by AST's recipe."""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastloaa.audio.base import SpectrogramFrontEnd, as_clips, clip_lengths
from fastloaa.audio.logmel import LogMel
from fastloaa.errors import ArgumentError
from fastloaa.ops.tracing import exporting

STATISTICS: dict[str, tuple[float, float]] = {
    "audioset": (-4.2677393, 4.5689974),
    "esc50": (-6.6268077, 5.358466),
    "speechcommands": (-6.845978, 5.5654526),
}
"""(mean, std) of the log-mel spectrograms of AST's datasets, 16 kHz and 128 mel bins, from AST's recipes."""
PART = 640_000  # samples at a time on a CPU: four clips of ten seconds


class FrontEnd(SpectrogramFrontEnd):
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
    low_freq = 20.0
    decibels = 10 / math.log(10)

    def __init__(
        self,
        frames: int,
        mel_bins: int = 128,
        sample_rate: int = 16000,
        mean: float = STATISTICS["audioset"][0],
        std: float = STATISTICS["audioset"][1],
    ) -> None:
        super().__init__(frames, mel_bins, sample_rate, mean, std)
        self.log_mel = LogMel(sample_rate, mel_bins)
        self.shift = self.log_mel.shift

    @property
    def shortest(self) -> int:
        """One window of 25 ms."""
        return self.log_mel.window

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
        """See `SpectrogramFrontEnd.forward`."""
        waveform, lengths = as_clips(waveform, lengths, self.log_mel.mel.device)
        if augment is not None:
            log_mel, _ = self.padded_log_mel(waveform, lengths)
            return (augment(log_mel) - self.mean).div_(2 * self.std)
        parts = (self._padded(*part)[0] for part in _parts(waveform, lengths))
        return _joined([log_mel.sub_(self.mean).div_(2 * self.std) for log_mel in parts])

    def padded_log_mel(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `SpectrogramFrontEnd.padded_log_mel`; the padding is zeros."""
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


@torch.no_grad()
def measure_statistics(
    front_end: SpectrogramFrontEnd, waveforms: Iterable[tuple[Tensor, Tensor | None]]
) -> tuple[float, float]:
    """Mean and standard deviation of a dataset's log-mel values, the `mean` and `std` of a front end.

    Args:
        front_end: gives frames, mel bins and rate; its own mean and std are not used.
        waveforms: batches (waveform, lengths) as a front end takes them. Only valid frames count, cut to `frames`.

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
