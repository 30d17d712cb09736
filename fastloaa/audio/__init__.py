"""From sound files to the features a spectrogram transformer reads: batched, on the model's device.

What reads or changes sounds needs the extra `audio` and is imported when it is first used; front ends need torch alone.
"""

from typing import TYPE_CHECKING

from fastloaa.audio.base import SpectrogramFrontEnd
from fastloaa.audio.epic_sounds import EpicSoundsFrontEnd
from fastloaa.audio.frontend import STATISTICS, FrontEnd, measure_statistics
from fastloaa.audio.logmel import LogMel
from fastloaa.audio.stored_front_end import LOG_MEL_RATE, StoredLogMel
from fastloaa.lazy import imported_when_used

if TYPE_CHECKING:  # the same names as in `_MODULES`, for type checkers and editors
    from fastloaa.audio.augment import SpecAugment, mixup, noise_and_roll
    from fastloaa.audio.decode import AudioError, AudioStream, AudioWarning, load_audio, load_beginning
    from fastloaa.audio.formats import is_readable, is_sound, sound_suffixes
    from fastloaa.audio.stored import LogMelStream, is_log_mel, load_log_mel, log_mel_shape

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
    "LogMelStream",
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

_MODULES = {
    "AudioError": "fastloaa.audio.decode",
    "AudioStream": "fastloaa.audio.decode",
    "AudioWarning": "fastloaa.audio.decode",
    "LogMelStream": "fastloaa.audio.stored",
    "SpecAugment": "fastloaa.audio.augment",
    "is_log_mel": "fastloaa.audio.stored",
    "is_readable": "fastloaa.audio.formats",
    "is_sound": "fastloaa.audio.formats",
    "load_audio": "fastloaa.audio.decode",
    "load_beginning": "fastloaa.audio.decode",
    "load_log_mel": "fastloaa.audio.stored",
    "log_mel_shape": "fastloaa.audio.stored",
    "mixup": "fastloaa.audio.augment",
    "noise_and_roll": "fastloaa.audio.augment",
    "sound_suffixes": "fastloaa.audio.formats",
}

__getattr__, __dir__ = imported_when_used(__name__, _MODULES)
