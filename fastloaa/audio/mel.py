"""The mel scale of Kaldi, which is HTK's, and where a front end's bins lie on it."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastloaa.audio.base import SpectrogramFrontEnd


def mel_of_hertz(hertz: ArrayLike) -> NDArray[np.float64]:
    """Mel of frequencies in Hz, any shape."""
    return 1127.0 * np.log1p(np.asarray(hertz, np.float64) / 700.0)


def hertz_of_mel(mel: ArrayLike) -> NDArray[np.float64]:
    """The inverse of `mel_of_hertz`."""
    return 700.0 * np.expm1(np.asarray(mel, np.float64) / 1127.0)


def hertz_of_bins(front_end: SpectrogramFrontEnd, bins: ArrayLike) -> NDArray[np.float64]:
    """Frequency at positions on the mel axis; bin i is centred at i + 0.5, where its filter has its peak."""
    low, high = mel_of_hertz(front_end.low_freq), mel_of_hertz(front_end.sample_rate / 2)
    return hertz_of_mel(low + (np.asarray(bins) + 0.5) * (high - low) / (front_end.mel_bins + 1))
