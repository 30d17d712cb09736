"""Whether a data set is of recordings or of stored spectrograms, and what those are like."""

from collections.abc import Sequence

from fastloaa.audio.decode import AudioError
from fastloaa.audio.stored import is_log_mel, log_mel_shape
from fastloaa.data.clips import Clip, DataError


def are_log_mels(clips: Sequence[Clip]) -> bool:
    """Whether the clips are stored spectrograms (`.npy`, `.npz`).

    Raises:
        DataError: some are, and some are recordings.
    """
    first: dict[bool, Clip] = {}
    for clip in clips:
        first.setdefault(is_log_mel(clip.path), clip)
    if len(first) > 1:
        raise DataError(
            f"both recordings, such as {first[False]}, and spectrograms, such as {first[True]}; train on one kind, "
            "with a table or a folder for each"
        )
    return True in first


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
