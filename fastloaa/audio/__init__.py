"""From sound files to the features a spectrogram transformer reads: batched, on the model's device."""

from fastloaa.audio.augment import SpecAugment, mixup, noise_and_roll
from fastloaa.audio.base import SpectrogramFrontEnd
from fastloaa.audio.decode import AudioError, AudioStream, AudioWarning, load_audio, load_beginning
from fastloaa.audio.epic_sounds import EpicSoundsFrontEnd
from fastloaa.audio.formats import is_readable, is_sound, sound_suffixes
from fastloaa.audio.frontend import STATISTICS, FrontEnd, measure_statistics
from fastloaa.audio.logmel import LogMel
from fastloaa.audio.stored import LOG_MEL_RATE, StoredLogMel, is_log_mel, load_log_mel, log_mel_shape

_FRONT_ENDS: tuple[type[SpectrogramFrontEnd], ...] = (
    FrontEnd,
    EpicSoundsFrontEnd,
    StoredLogMel,
)
FRONT_ENDS = {front_end.kind: front_end for front_end in _FRONT_ENDS}
"""The front ends by their names in configurations, recipes and exported files."""

__all__ = [
    "FRONT_ENDS",
    "LOG_MEL_RATE",
    "STATISTICS",
    "AudioError",
    "AudioStream",
    "AudioWarning",
    "EpicSoundsFrontEnd",
    "FrontEnd",
    "LogMel",
    "SpecAugment",
    "SpectrogramFrontEnd",
    "StoredLogMel",
    "is_log_mel",
    "is_readable",
    "is_sound",
    "load_audio",
    "load_beginning",
    "load_log_mel",
    "log_mel_shape",
    "measure_statistics",
    "mixup",
    "noise_and_roll",
    "sound_suffixes",
]
