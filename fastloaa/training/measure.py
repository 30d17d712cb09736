"""What a recipe leaves open and the training clips decide: frames, mean and standard deviation."""

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from torch import Tensor

from fastloaa.audio import SpectrogramFrontEnd, measure_statistics
from fastloaa.audio.decode import AudioError
from fastloaa.data import Batch, BrokenFiles, Clip, DataError, clip_seconds

MAX_FRAMES = 1024
MEASURED = 10_000
"""Clips that are looked at; of more of them so many, spread evenly."""


def measured(count: int) -> range:
    """Which of so many clips are looked at."""
    return range(0, count, -(-count // MEASURED) or 1)


def measure_frames(clips: Sequence[Clip], patch_frames: int, frames_per_second: int = 100) -> int:
    """Frames that 95% of the clips fit into, rounded up to whole patches, at most 1024.

    Only headers are read, of at most `MEASURED` clips; files that are no sound are passed over.

    Raises:
        DataError: none of the files can be read.
    """
    seconds = []
    for index in measured(len(clips)):
        try:
            seconds.append(clip_seconds(clips[index]))
        except AudioError:
            continue
    if not seconds:
        raise DataError(f"none of {len(clips)} training clips can be read, such as {clips[0]}; check the data")
    frames = float(np.percentile(seconds, 95)) * frames_per_second
    patches = math.ceil(round(frames / patch_frames, 6))  # 1.28 s are 128 frames, whatever its binary digits say
    return min(max(patches, 1), MAX_FRAMES // patch_frames) * patch_frames


def measure_normalisation(front_end: SpectrogramFrontEnd, batches: Iterable[Batch], clips: int) -> tuple[float, float]:
    """Mean and standard deviation of the clips' log-mel values, as far as `front_end` reads them.

    Args:
        clips: how many there are, broken ones included.

    Raises:
        DataError: no clip can be read or is as long as one window, or all are silent.
    """
    broken = BrokenFiles(clips)

    def readable() -> Iterator[tuple[Tensor, Tensor]]:
        for batch in batches:
            broken.add(batch.broken, batch.broken_indices)
            if len(batch):
                yield batch.waveform, batch.lengths

    try:
        mean, std = measure_statistics(front_end, readable())
    except ValueError as error:
        raise DataError(f"mean and std cannot be measured: {error}") from error
    if std == 0:
        raise DataError("all training clips are silent, expected sound; check the recordings")
    return mean, std
