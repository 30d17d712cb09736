"""Kaldi's log-mel filter bank as one batched module."""

from collections.abc import Sequence
from os import PathLike

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastloaa.audio.constants import Constants
from fastloaa.audio.filters import kaldi_filters
from fastloaa.errors import ArgumentError
from fastloaa.ops.autocast import without_autocast
from fastloaa.ops.tracing import exporting

PREEMPHASIS = 0.97
FLOOR = torch.finfo(torch.float32).eps  # of a mel band's power, so that silence has a logarithm: ln(FLOOR) = -15.94
CHUNK = 1024  # frames at a time on a CPU: a batch of ten-second clips at once would fall out of its caches
BAND = 16  # mel filters of one matrix product on a CPU


class LogMel(Constants):
    """Log-mel spectrogram, equal to `torchaudio.compliance.kaldi.fbank` as AST calls it.

    That is: Hann window (`window_type="hanning"`), mean of each frame removed, pre-emphasis 0.97, power spectrum,
    `use_energy=False`, `dither=0`, `snip_edges=True`. The precision stays what it is under autocast and after
    `model.half()`. No entries in the state dict.

    Args:
        sample_rate: of the waveforms, in Hz.
        mel_bins: number of triangular mel filters, at least 4.
        frame_length_ms, frame_shift_ms: window and hop, in milliseconds.
        low_freq, high_freq: the filters' range in Hz; high_freq <= 0 counts down from the Nyquist frequency.

    Attributes:
        window, shift: window and hop in samples.

    Raises:
        ArgumentError: options out of range.

    Source: Kaldi's `feature-fbank.cc`, `feature-window.cc`, `mel-computations.cc`.

    Examples:
        >>> import torch
        >>> from fastloaa.audio import LogMel
        >>> LogMel(sample_rate=16000, mel_bins=128)(torch.randn(4, 16000)).shape
        torch.Size([4, 98, 128])
    """

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
            raise ArgumentError(
                f"frames of {frame_length_ms} ms every {frame_shift_ms} ms at {sample_rate} Hz are {self.window} "
                f"samples every {self.shift}, expected at least 2 every 1; raise the times or the rate"
            )
        nyquist = sample_rate / 2
        top = high_freq if high_freq > 0 else nyquist + high_freq
        if mel_bins < 4 or not 0 <= low_freq < top <= nyquist:
            raise ArgumentError(
                f"mel_bins is at least 4 and 0 <= low_freq < high_freq <= {nyquist:g} Hz (half the rate), got "
                f"mel_bins={mel_bins}, low_freq={low_freq:g}, high_freq={top:g}"
            )
        self.fft_size = 1 << (self.window - 1).bit_length()  # Kaldi rounds up to a power of two
        self._range = (low_freq, top)
        self.bands = _bands(self.register_constants()["mel"])

    def constants(self) -> dict[str, Tensor]:
        """fourier [2 * bins, 1, window] and mel [2 * bins, mel_bins]."""
        # The spectrum is linear in the frame: its values on the unit vectors are its matrix.
        fourier = self._spectrum(torch.eye(self.window, dtype=torch.float64))  # [window, 1 frame, 2 * bins]
        frequencies = torch.arange(1, self.fft_size // 2) * (self.sample_rate / self.fft_size)
        mel = kaldi_filters(frequencies, *self._range, self.mel_bins)
        mel = mel.repeat_interleave(2, 0)  # the sum of both parts' squares is left to the product
        return {"fourier": fourier.permute(2, 1, 0).float().contiguous(), "mel": mel}

    def forward(self, waveform: Tensor) -> Tensor:
        """Log-mel power of a batch.

        Args:
            waveform: `[batch, samples]`, floating point, full scale at ±1, or int16, samples >= `window`; numpy arrays
                and lists are taken as well.

        Returns:
            float32 `[batch, frames, mel_bins]`, natural logarithm, frames = (samples - window) // shift + 1.

        Raises:
            ArgumentError: another shape or dtype, or a waveform shorter than one window.
        """
        waveform = as_waveform(waveform, self.mel.device)
        self.meet(waveform)
        if waveform.shape[1] < self.window:
            raise ArgumentError(
                f"a waveform of {waveform.shape[1]} samples is shorter than one window of {self.window}; pad it with "
                f"zeros, or use FrontEnd, which takes any length"
            )
        with without_autocast(waveform.device.type):
            if exporting() or not len(waveform):  # few runtimes have an FFT, and MKL's takes no empty batch
                return self._log(self._spectrum_by_convolution(waveform).square() @ self.mel)
            if waveform.device.type != "cpu":
                return self._log(self._spectrum(waveform.float()).square() @ self.mel)
            clips = max(CHUNK * self.shift // waveform.shape[1], 1)
            parts = (waveform,) if torch.compiler.is_compiling() else waveform.split(clips)
            return torch.cat([self._log(self._by_band(self._spectrum(part.float()).square())) for part in parts])

    def _spectrum_by_convolution(self, waveform: Tensor) -> Tensor:
        """`_spectrum`: all its steps are linear, so they are one matrix, in a strided convolution.

        Not for GPUs: there PyTorch convolves float32 in TF32 unless told otherwise, ten bits, which drown a quiet band
        beside a loud one (2 log units on real recordings).
        """
        return F.conv1d(waveform.float()[:, None], self.fourier, stride=self.shift).transpose(1, 2)

    def _spectrum(self, waveform: Tensor) -> Tensor:
        """Kaldi's steps up to the DFT of every frame: `[batch, samples]` -> `[batch, frames, 2 * bins]`.

        Real and imaginary parts in turn, as an FFT leaves them in memory. bins = fft_size / 2 - 1: the mel filters
        leave out 0 Hz and the Nyquist frequency.
        """
        # Pre-emphasis, once for each sample instead of once for each frame that has it. It takes a constant m to
        # (1 - 0.97) m: so much of the frame's mean is left to remove.
        emphasised = torch.sub(waveform[:, 1:], waveform[:, :-1], alpha=PREEMPHASIS)
        mean = (1 - PREEMPHASIS) * waveform.unfold(1, self.window, self.shift).mean(-1, keepdim=True)
        # A Hann window begins with zero, so what stands before a frame does not matter; nor does what follows it.
        frames = F.pad(emphasised, (1, self.fft_size - self.window)).unfold(1, self.fft_size, self.shift)
        taper = torch.hann_window(self.window, periodic=False, dtype=waveform.dtype, device=waveform.device)
        # mean + taper * (frames - mean) in one pass: the constant on top of the windowed frame is at 0 Hz alone.
        windowed = torch.lerp(mean, frames, F.pad(taper, (0, self.fft_size - self.window)))
        return torch.view_as_real(torch.fft.rfft(windowed)[..., 1:-1]).flatten(-2)

    def _by_band(self, squares: Tensor) -> Tensor:
        """`squares @ mel` without most of the zeros: a filter covers a few bins, and its neighbours nearly the same."""
        return torch.cat([squares[..., rows] @ self.mel[rows, filters] for rows, filters in self.bands], dim=-1)

    @staticmethod
    def _log(mel_power: Tensor) -> Tensor:
        """In place."""
        return mel_power.clamp_(min=FLOOR).log_()

    def extra_repr(self) -> str:
        return f"sample_rate={self.sample_rate}, mel_bins={self.mel_bins}, window={self.window}, shift={self.shift}"


def _bands(mel: Tensor) -> list[tuple[slice, slice]]:
    """(rows, filters) of `BAND` neighbouring filters each; outside the rows they are all zero. mel: [rows, filters]."""
    found = []
    for start in range(0, mel.shape[1], BAND):
        filters = slice(start, start + BAND)
        covered = mel[:, filters].any(1).nonzero()
        rows = slice(int(covered.min()), int(covered.max()) + 1) if len(covered) else slice(0, 0)
        found.append((rows, filters))
    return found


def as_waveform(waveform: object, device: torch.device | None = None) -> Tensor:
    """A batch of clips as a floating-point tensor `[batch, samples]`.

    Args:
        waveform: see `as_samples`; a list of clips of one length is a batch of them.
        device: of the result, where `waveform` is no tensor.

    Raises:
        ArgumentError: another shape or dtype, or no samples.
    """
    samples = as_samples(waveform, device)
    if samples.ndim != 2 or not samples.shape[1]:
        raise ArgumentError(
            f"expected a waveform [batch, samples], got shape {list(samples.shape)}; "
            f"a single clip is waveform[None], channels are averaged beforehand"
        )
    return samples


def as_samples(values: object, device: torch.device | None = None) -> Tensor:
    """Samples between -1 and 1 as a floating-point tensor of any shape.

    Args:
        values: floating-point numbers, or 16-bit integers, which are divided by 32768: a tensor, what numpy takes for
            an array, or lists of them.
        device: of the result, where `values` is no tensor.

    Raises:
        ArgumentError: no numbers, rows of several lengths, or another dtype.
    """
    samples = values if isinstance(values, Tensor) else as_numbers(values).to(device)
    if samples.dtype == torch.int16:
        return samples / 32768
    if not samples.is_floating_point():
        raise ArgumentError(
            f"expected a floating-point waveform between -1 and 1, or 16-bit integers, got {samples.dtype}; "
            "divide it by its full scale"
        )
    return samples


def as_numbers(values: object, expected: str = "a waveform [batch, samples]") -> Tensor:
    """Numbers of any shape and dtype that PyTorch has as a tensor.

    Args:
        values: a tensor, which is returned as it is, what numpy takes for an array, or lists of them.
        expected: what is asked for where they are none.

    Raises:
        ArgumentError: no numbers, or rows of several lengths.
    """
    if isinstance(values, Tensor):
        return values
    if isinstance(values, str | bytes | PathLike):
        reader = "load_audio reads sound files, load_log_mel stored spectrograms"
        raise ArgumentError(f"expected {expected}, got {values!r}; {reader}")
    rows = values
    if isinstance(values, Sequence):
        rows = [clip.numpy(force=True) if isinstance(clip, Tensor) else clip for clip in values]
    try:
        array = np.asarray(rows)
        if array.dtype == np.float64 and not isinstance(values, np.ndarray):
            array = array.astype(np.float32)  # Python's numbers
        # torch takes neither foreign byte orders nor negative strides, and warns of what is read-only.
        return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))
    except (TypeError, ValueError) as error:  # no numbers, or rows of several lengths
        raise ArgumentError(
            f"expected {expected}, got {described(values)}; clips of several lengths are padded to one and their "
            "lengths given beside them"
        ) from error


def described(value: object) -> str:
    """What a value is, for messages."""
    shape = f" of shape {list(value.shape)}" if hasattr(value, "shape") else ""
    return f"a {type(value).__module__}.{type(value).__name__}{shape}".replace("builtins.", "")
