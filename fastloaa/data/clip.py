"""One clip of a data set."""

import math
from dataclasses import dataclass
from pathlib import Path

from fastloaa.errors import FastloaaError
from fastloaa.text import printable


class DataError(FastloaaError, ValueError):
    """A data set that cannot be used; the message is one line that says what was found, expected and to do."""


@dataclass(frozen=True, slots=True)  # AudioSet has two million
class Clip:
    """One recording, or a segment of one.

    Attributes:
        path: the sound file, or an HDF5 file of sounds.
        labels: indices into the data set's classes; one for single-label sets.
        group: what it shares with clips that must stay on its side of a split (a source recording, a voice).
        start, stop: where the segment begins and ends, in seconds; a stop of None is the end of the recording.
        track: which sound of an HDF5 file, see `fastloaa.data.hdf5`; None for sound files.

    Raises:
        DataError: a segment that ends before it begins.
    """

    path: Path
    labels: tuple[int, ...]
    group: str | None = None
    start: float = 0.0
    stop: float | None = None
    track: str | None = None

    def __post_init__(self) -> None:
        check_segment(self, self.start, self.stop)

    def __str__(self) -> str:
        """The path as text, with track and segment if it has them: `EPIC_audio.hdf5[P01_01] 2.069-2.993 s`."""
        track = "" if self.track is None else f"[{self.track}]"
        stop = "" if self.stop is None else f"{self.stop:g}"
        return f"{printable(self.path)}{track}" + ("" if self.is_whole else f" {self.start:g}-{stop} s")

    @property
    def is_whole(self) -> bool:
        """Whether the clip is all of its recording."""
        return self.start == 0 and self.stop is None


def check_segment(clip: object, start: float, stop: float | None) -> None:
    """Raise DataError for a segment that ends before it begins."""
    if not 0 <= start < (math.inf if stop is None else stop):
        raise DataError(f"{clip}: expected a segment with 0 <= start < stop; correct its times")
