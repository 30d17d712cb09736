"""EPIC-SOUNDS' own log-mel spectrogram."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fastloaa.audio.base import SpectrogramFrontEnd, as_clips, clip_lengths
from fastloaa.audio.constants import Constants
from fastloaa.audio.filters import htk_filters
from fastloaa.errors import ArgumentError
from fastloaa.ops.autocast import without_autocast
from fastloaa.ops.tracing import exporting

FLOOR = 1e-6  # added to a mel band's magnitude, so that silence has a logarithm
FFT_SIZE = 2048


class EpicSoundsFrontEnd(SpectrogramFrontEnd, Constants):
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
    low_freq = 0.0
    decibels = 20 / math.log(10)
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
        super().__init__(frames, mel_bins, sample_rate, mean, std)
        self.window, self.shift = round(sample_rate * 0.010), round(sample_rate * 0.005)
        if mel_bins < 1 or not 2 <= self.window <= FFT_SIZE:
            raise ArgumentError(
                f"mel_bins is at least 1 and 10 ms are 2 to {FFT_SIZE} samples, "
                f"got mel_bins={mel_bins}, {self.window} samples at {sample_rate} Hz"
            )
        self.register_constants()

    def constants(self) -> dict[str, Tensor]:
        """taper [window], fourier [2 * bins, 1, window] and mel [bins, mel_bins]."""
        taper = torch.hann_window(self.window, dtype=torch.float64)  # periodic, as librosa's
        # Magnitudes do not depend on where in the transform the window lies: it needs no centring there.
        spectrum = torch.fft.rfft(torch.diag(taper), n=FFT_SIZE)  # [window, bins]
        fourier = torch.view_as_real(spectrum).permute(2, 1, 0).reshape(-1, 1, self.window)
        frequencies = torch.linspace(0, self.sample_rate / 2, FFT_SIZE // 2 + 1, dtype=torch.float64)
        mel = htk_filters(frequencies, 0.0, self.sample_rate / 2, self.mel_bins)
        return {"taper": taper.float(), "fourier": fourier.float(), "mel": mel.float()}

    @property
    def shortest(self) -> int:
        """One window of 10 ms; all that is heard, where that is less (one or two frames)."""
        return min(self.window, self.samples)

    @property
    def samples(self) -> int:
        """How many samples fill the frames; the baselines' slice of 1.999 s leaves its last sample out as well."""
        return self.frames * self.shift - round(0.001 * self.sample_rate) - 1

    def padded_log_mel(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `SpectrogramFrontEnd.padded_log_mel`; the padding is the last valid frame, repeated."""
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
