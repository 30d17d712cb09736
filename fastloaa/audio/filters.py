"""Banks of triangular filters whose peaks lie evenly on the mel scale, `[frequencies, filters]`."""

import math

import torch
from torch import Tensor


def kaldi_filters(frequencies: Tensor, low: float, high: float, mel_bins: int) -> Tensor:
    """Kaldi's: triangles over mels, in float32.

    Rounded where Kaldi rounds: at the feet of a triangle nothing but rounding says how much of a frequency is heard.

    Args:
        frequencies: float32 `[n]`, in Hz.
        low, high: where the first filter begins and the last ends, in Hz.
    """
    start, end = (1127.0 * math.log(1 + hertz / 700) for hertz in (low, high))
    step = (end - start) / (mel_bins + 1)
    mels = 1127.0 * (1 + frequencies / 700).log()[:, None]
    numbers = torch.arange(mel_bins)
    left, peak, right = (start + (numbers + corner) * step for corner in (0.0, 1.0, 2.0))
    return torch.minimum((mels - left) / (peak - left), (right - mels) / (right - peak)).clamp(min=0)


def htk_filters(frequencies: Tensor, low: float, high: float, mel_bins: int) -> Tensor:
    """HTK's, as librosa and torchaudio have them: triangles over Hz, in float64; arguments as of `kaldi_filters`."""
    start, end = (math.log1p(hertz / 700) for hertz in (low, high))  # mels but for a factor, which does not matter
    edges = 700 * torch.linspace(start, end, mel_bins + 2, dtype=torch.float64).expm1()
    left, peak, right = edges[:-2], edges[1:-1], edges[2:]
    hertz = frequencies.double()[:, None]
    return torch.minimum((hertz - left) / (peak - left), (right - hertz) / (right - peak)).clamp(min=0)
