"""Whether a data set is of recordings or of stored spectrograms, and what those are like."""

import os
from collections.abc import Sequence

import numpy as np

from fastloaa.audio.decode import AudioError
from fastloaa.audio.stored import is_log_mel, log_mel_shape
from fastloaa.data.clip import Clip, DataError
from fastloaa.data.clip_list import ClipList


def are_log_mels(clips: Sequence[Clip]) -> bool:
    """Whether the clips are stored spectrograms (`.npy`, `.npz`).

    Raises:
        DataError: some are, and some are recordings.
    """
    clips = ClipList.of(clips)
    stored = np.fromiter((is_log_mel(os.fsdecode(path[-8:])) for path in clips.paths.texts()), bool, len(clips))
    if stored.any() and not stored.all():
        sound, spectrogram = clips[int(stored.argmin())], clips[int(stored.argmax())]
        raise DataError(
            f"both recordings, such as {sound}, and spectrograms, such as {spectrogram}; train on one kind, with a "
            "table or a folder for each"
        )
    return bool(stored.any())


def measure_mel_bins(clips: Sequence[Clip]) -> int:
    """The mel bins that all of the stored spectrograms have; only headers are read, of files that can be.

    Raises:
        DataError: none can be read, or they have different numbers.
    """
    found: dict[int, Clip] = {}
    error: AudioError | None = None
    for clip in clips:
        try:
            found.setdefault(log_mel_shape(clip.path)[1], clip)
        except AudioError as unreadable:
            error = error or unreadable
    if not found:
        raise DataError(f"none of {len(clips)} spectrograms can be read: {error}")
    if len(found) > 1:
        some = ", ".join(f"{clip} has {bins}" for bins, clip in sorted(found.items())[:3])
        raise DataError(f"spectrograms of different numbers of mel bins: {some}; write them alike, [frames, mel_bins]")
    return next(iter(found))
