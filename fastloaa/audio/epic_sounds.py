"""EPIC-SOUNDS' own log-mel spectrogram."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchaudio.functional import melscale_fbanks

from fastloaa.audio.constants import Constants
from fastloaa.audio.frontend import as_clips, clip_lengths
from fastloaa.errors import ArgumentError
from fastloaa.ops.autocast import without_autocast
from fastloaa.ops.tracing import exporting

FLOOR = 1e-6  # added to a mel band's magnitude, so that silence has a logarithm
FFT_SIZE = 2048


class EpicSoundsFrontEnd(Constants):
    """Log-mel features as the baselines of EPIC-SOUNDS prepare them, used like `FrontEnd`.

    Magnitudes of the Fourier transform of Hann windows of 10 ms every 5 ms, the first and last centred on the clip's
    ends with zeros beyond; HTK's triangular mel filters; `ln(mel + 1e-6)`. A clip is cut at 1 ms less than `frames`
    windows' worth (1.999 s for 400); the last frame of a shorter one is repeated. Normalisation is the formula of
    `FrontEnd`, which with the defaults, the baselines' own, changes nothing. No entries in the state dict.

    Args:
        frames: frames of the result, 400 in the baselines.
        mel_bins: number of mel filters.
        sample_rate: in Hz.
        mean, std: the result is `(log_mel - mean) / (2 * std)`.

    Source: `audio_loader_epicsounds.py` of https://github.com/epic-kitchens/epic-sounds-annotations (librosa's `stft`
    and `filters.mel`).
    """

    kind = "epic-sounds"
    frames_per_second = 200
    taper: Tensor
    fourier: Tensor
    mel: Tensor

    def __init__(
        self,
        frames: int = 400,
        mel_bins: int = 128,
        sample_rate: int = 24000,
        mean: float = 0.0,
        std: float = 0.5,
    ) -> None:
        super().__init__()
        if not std > 0:
            raise ArgumentError(f"std is above 0, got {std}")
        self.frames, self.mel_bins, self.sample_rate, self.mean, self.std = frames, mel_bins, sample_rate, mean, std
        self.window, self.shift = round(sample_rate * 0.010), round(sample_rate * 0.005)
        if frames < 1 or mel_bins < 1 or not 2 <= self.window <= FFT_SIZE:
            raise ArgumentError(
                f"frames and mel_bins are at least 1 and 10 ms are 2 to {FFT_SIZE} samples, "
                f"got frames={frames}, mel_bins={mel_bins}, {self.window} samples at {sample_rate} Hz"
            )
        self.register_constants()

    def constants(self) -> dict[str, Tensor]:
        """taper [window], fourier [2 * bins, 1, window] and mel [bins, mel_bins]."""
        taper = torch.hann_window(self.window, dtype=torch.float64)  # periodic, as librosa's
        # Magnitudes do not depend on where in the transform the window lies: it needs no centring there.
        spectrum = torch.fft.rfft(torch.diag(taper), n=FFT_SIZE)  # [window, bins]
        fourier = torch.view_as_real(spectrum).permute(2, 1, 0).reshape(-1, 1, self.window)
        top, bins = self.sample_rate / 2, FFT_SIZE // 2 + 1
        mel = melscale_fbanks(bins, 0.0, top, self.mel_bins, self.sample_rate, mel_scale="htk")
        return {"taper": taper.float(), "fourier": fourier.float(), "mel": mel}

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, ready for JSON."""
        return {
            "frames": self.frames,
            "mel_bins": self.mel_bins,
            "sample_rate": self.sample_rate,
            "mean": self.mean,
            "std": self.std,
        }

    @property
    def samples(self) -> int:
        """How many samples fill the frames; the baselines' slice of 1.999 s leaves its last sample out as well."""
        return self.frames * self.shift - round(0.001 * self.sample_rate) - 1

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
            lengths: int64 `[batch]`, the valid samples of each clip, 1 <= lengths <= samples; None: all are valid.
            augment: applied to the padded, not yet normalised log-mel spectrogram, e.g. a `SpecAugment`.

        Returns:
            float32 `[batch, frames, mel_bins]`.

        Raises:
            ArgumentError: another shape or dtype.
        """
        log_mel, _ = self.padded_log_mel(waveform, lengths)
        if augment is not None:
            log_mel = augment(log_mel)
        return (log_mel - self.mean) / (2 * self.std)

    def padded_log_mel(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The log-mel spectrogram before augmentation.

        Returns:
            log_mel: float32 `[batch, frames, mel_bins]`, with the last valid frame repeated in the padding.
            valid: bool `[batch, frames]`, False in the padding.
        """
        waveform, lengths = as_clips(waveform, lengths, self.mel.device)
        lengths = clip_lengths(waveform, lengths).clamp(max=self.samples)
        self.meet(waveform)
        inside = torch.arange(self.samples, device=waveform.device) < lengths[:, None]
        waveform = torch.where(inside, F.pad(waveform.float(), (0, self.samples))[:, : self.samples], 0.0)
        half = self.window // 2
        end = (self.frames - 1) * self.shift + self.window - half  # where the last window ends
        with without_autocast(waveform.device.type):
            magnitude = self._magnitude(F.pad(waveform, (half, end - self.samples)))  # [batch, frames, bins]
            log_mel = (magnitude @ self.mel + FLOOR).log()
        frame = torch.arange(self.frames, device=waveform.device)
        last = lengths[:, None] // self.shift
        source = torch.minimum(frame, last)[..., None].expand_as(log_mel)
        return log_mel.gather(1, source), frame <= last

    def _magnitude(self, waveform: Tensor) -> Tensor:
        if exporting():  # few runtimes have an FFT
            real, imaginary = F.conv1d(waveform[:, None], self.fourier, stride=self.shift).chunk(2, dim=1)
            return (real.square() + imaginary.square()).sqrt().transpose(1, 2)
        return torch.fft.rfft(waveform.unfold(1, self.window, self.shift) * self.taper, n=FFT_SIZE).abs()
