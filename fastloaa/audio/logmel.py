"""Kaldi's log-mel filter bank as one batched module."""

from collections.abc import Callable
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.compliance.kaldi import get_mel_banks

PREEMPHASIS = 0.97
FLOOR = torch.finfo(torch.float32).eps  # of a mel band's power, so that silence has a logarithm: ln(FLOOR) = -15.94


class LogMel(nn.Module):
    """Log-mel spectrogram, equal to `torchaudio.compliance.kaldi.fbank` as AST calls it.

    That is: Hann window (`window_type="hanning"`), mean of each frame removed, pre-emphasis 0.97, power spectrum,
    `use_energy=False`, `dither=0`, `snip_edges=True`. The arithmetic stays float32 under autocast and after
    `model.half()`. No entries in the state dict.

    Args:
        sample_rate: of the waveforms, in Hz.
        mel_bins: number of triangular mel filters, at least 4.
        frame_length_ms, frame_shift_ms: window and hop, in milliseconds.
        low_freq, high_freq: the filters' range in Hz; high_freq <= 0 counts down from the Nyquist frequency.

    Attributes:
        window, shift: window and hop in samples.

    Raises:
        ValueError: options out of range.

    Source: Kaldi's `feature-fbank.cc`, `feature-window.cc`, by way of torchaudio.
    """

    taper: Tensor
    fourier: Tensor
    mel: Tensor

    def __init__(
        self,
        sample_rate: int = 16000,
        mel_bins: int = 128,
        *,
        frame_length_ms: float = 25.0,
        frame_shift_ms: float = 10.0,
        low_freq: float = 20.0,
        high_freq: float = 0.0,
    ) -> None:
        super().__init__()
        self.sample_rate, self.mel_bins = sample_rate, mel_bins
        self.window = int(sample_rate * frame_length_ms * 0.001)  # truncated in this order, as Kaldi does
        self.shift = int(sample_rate * frame_shift_ms * 0.001)
        if self.window < 2 or self.shift < 1:
            raise ValueError(
                f"frames of {frame_length_ms} ms every {frame_shift_ms} ms at {sample_rate} Hz are {self.window} "
                f"samples every {self.shift}, expected at least 2 every 1; raise the times or the rate"
            )
        nyquist = sample_rate / 2
        top = high_freq if high_freq > 0 else nyquist + high_freq
        if mel_bins < 4 or not 0 <= low_freq < top <= nyquist:
            raise ValueError(
                f"mel_bins is at least 4 and 0 <= low_freq < high_freq <= {nyquist:g} Hz (half the rate), got "
                f"mel_bins={mel_bins}, low_freq={low_freq:g}, high_freq={top:g}"
            )
        self.fft_size = 1 << (self.window - 1).bit_length()  # Kaldi rounds up to a power of two
        taper = torch.hann_window(self.window, periodic=False, dtype=torch.float64)
        # The spectrum is linear in the frame: its values on the unit vectors are its matrix.
        matrix = self._spectrum(torch.eye(self.window, dtype=torch.float64), taper)  # [window, bins, 2]
        fourier = matrix.permute(2, 1, 0).reshape(-1, 1, self.window)  # [2 * bins, 1, window]
        mel, _ = get_mel_banks(mel_bins, self.fft_size, sample_rate, low_freq, high_freq, 100.0, -500.0, 1.0)
        self.register_buffer("taper", taper.float(), persistent=False)  # [window]
        self.register_buffer("fourier", fourier.float(), persistent=False)
        self.register_buffer("mel", mel.T.float().contiguous(), persistent=False)  # [bins, mel_bins]

    def forward(self, waveform: Tensor) -> Tensor:
        """Log-mel power of a batch.

        Args:
            waveform: `[batch, samples]`, floating point, full scale at ±1, samples >= `window`.

        Returns:
            float32 `[batch, frames, mel_bins]`, natural logarithm, frames = (samples - window) // shift + 1.

        Raises:
            ValueError: another shape or dtype, or a waveform shorter than one window.
        """
        check_waveform(waveform)
        if waveform.shape[1] < self.window:
            raise ValueError(
                f"a waveform of {waveform.shape[1]} samples is shorter than one window of {self.window}; pad it with "
                f"zeros, or use FrontEnd, which takes any length"
            )
        # On GPUs PyTorch runs float32 convolutions in TF32 unless told otherwise: ten bits, which drown a quiet band
        # beside a loud one (2 log units on real recordings). FFTs are always float32. Graphs to be exported want the
        # convolution, since few runtimes have an FFT; on CPUs it is the more accurate of the two.
        convolve = waveform.device.type == "cpu" or torch.compiler.is_exporting()
        with torch.autocast(waveform.device.type, enabled=False):
            power = self._power_by_convolution if convolve else self._power_by_fft
            return (power(waveform.float()) @ self.mel).clamp(min=FLOOR).log()

    def _power_by_convolution(self, waveform: Tensor) -> Tensor:
        """Power spectrum `[batch, frames, bins]` with the matrix as a strided convolution."""
        real, imaginary = F.conv1d(waveform[:, None], self.fourier, stride=self.shift).chunk(2, dim=1)
        return (real.square() + imaginary.square()).transpose(1, 2)

    def _power_by_fft(self, waveform: Tensor) -> Tensor:
        """Power spectrum `[batch, frames, bins]` step by step."""
        return self._spectrum(waveform.unfold(1, self.window, self.shift), self.taper).square().sum(-1)

    def _spectrum(self, frames: Tensor, taper: Tensor) -> Tensor:
        """Kaldi's steps up to the DFT: `[..., window]` -> real and imaginary parts `[..., bins, 2]`.

        bins = fft_size / 2: the mel filters leave out the Nyquist frequency.
        """
        frames = frames - frames.mean(-1, keepdim=True)
        # The first sample's predecessor does not matter: a Hann window begins with zero.
        emphasised = frames - PREEMPHASIS * frames.roll(1, dims=-1)
        spectrum = torch.fft.rfft(emphasised * taper, n=self.fft_size)
        return torch.view_as_real(spectrum[..., :-1])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follow the model to another device, but stay float32 when it is cast to half precision."""
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)

    def extra_repr(self) -> str:
        return f"sample_rate={self.sample_rate}, mel_bins={self.mel_bins}, window={self.window}, shift={self.shift}"


def check_waveform(waveform: Tensor) -> None:
    """Raise ValueError unless `waveform` is a floating-point batch `[batch, samples]` with at least one sample."""
    if waveform.ndim != 2 or not waveform.shape[1]:
        raise ValueError(
            f"expected a waveform [batch, samples], got shape {list(waveform.shape)}; "
            f"a single clip is waveform[None], channels are averaged beforehand"
        )
    if not waveform.is_floating_point():
        raise ValueError(
            f"expected a floating-point waveform between -1 and 1, got {waveform.dtype}; divide 16-bit samples by 32768"
        )
