"""From sound files to the features a spectrogram transformer reads: batched, on the model's device."""

from fastloaa.audio.augment import SpecAugment, mixup, noise_and_roll
from fastloaa.audio.decode import AudioError, load_audio
from fastloaa.audio.frontend import STATISTICS, FrontEnd, measure_statistics
from fastloaa.audio.logmel import LogMel

__all__ = [
    "STATISTICS",
    "AudioError",
    "FrontEnd",
    "LogMel",
    "SpecAugment",
    "load_audio",
    "measure_statistics",
    "mixup",
    "noise_and_roll",
]
