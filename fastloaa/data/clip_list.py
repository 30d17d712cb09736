"""Lists of clips as arrays: millions of them in little memory, which worker processes share instead of copying."""

import hashlib
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from fastloaa.data.clip import Clip, check_segment

Index = NDArray[np.int64]


class Ragged:
    """Rows of different lengths, one after the other.

    Args:
        values: of all rows.
        ends: where each row ends in them, int64 `[rows]`.
    """

    __slots__ = ("ends", "values")

    def __init__(self, values: NDArray[Any], ends: Index) -> None:
        self.values, self.ends = values, ends

    @classmethod
    def empty(cls, rows: int) -> "Ragged":
        return cls(np.empty(0, np.uint8), np.zeros(rows, np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, row: int) -> NDArray[Any]:
        return self.values[self.ends[row - 1] if row else 0 : self.ends[row]]

    @property
    def lengths(self) -> Index:
        return np.diff(self.ends, prepend=0)

    def take(self, rows: Index) -> "Ragged":
        lengths = self.lengths[rows]
        ends = np.cumsum(lengths)
        shift = (self.ends - self.lengths)[rows] - (ends - lengths)
        return Ragged(self.values[np.arange(lengths.sum()) + np.repeat(shift, lengths)], ends)

    def texts(self) -> Iterator[bytes]:
        """Rows of bytes as such."""
        everything, start = self.values.tobytes(), 0
        for end in self.ends.tolist():
            yield everything[start:end]
            start = end

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ragged):
            return NotImplemented
        return np.array_equal(self.ends, other.ends) and np.array_equal(self.values, other.values)

    __hash__ = None  # type: ignore[assignment]


class ClipList(Sequence[Clip]):
    """An immutable sequence of clips, kept as arrays; `clips[i]` makes the `Clip` when it is asked for.

    A list of Python objects is copied by every worker of a DataLoader, page by page, as soon as it counts references
    to them, and takes 400 bytes or more for each clip; this takes some 100, which forked workers share. `ClipList.of`
    makes one of any clips, and `ClipWriter` without making those first.

    Attributes:
        paths: Ragged of the paths' bytes.
        labels: Ragged of int32.
    """

    __slots__ = ("groups", "labels", "paths", "starts", "stops", "tracks")

    def __init__(
        self,
        paths: Ragged,
        labels: Ragged,
        groups: Ragged | None = None,
        starts: NDArray[np.float64] | None = None,
        stops: NDArray[np.float64] | None = None,
        tracks: Ragged | None = None,
    ) -> None:
        # Columns in which no clip has anything are None; in others an empty text and an infinite stop mean None.
        self.paths, self.labels, self.groups = paths, labels, groups
        self.starts, self.stops, self.tracks = starts, stops, tracks

    @classmethod
    def of(cls, clips: Iterable[Clip]) -> "ClipList":
        """The same clips, or `clips` itself if it is one already."""
        if isinstance(clips, ClipList):
            return clips
        writer = ClipWriter()
        for clip in clips:
            writer.add(str(clip.path), clip.labels, clip.group, clip.start, clip.stop, clip.track)
        return writer.done()

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> Clip: ...
    @overload
    def __getitem__(self, index: slice) -> "ClipList": ...
    def __getitem__(self, index: int | slice) -> "Clip | ClipList":
        if isinstance(index, slice):
            return self.take(np.arange(*index.indices(len(self))))
        row = range(len(self))[index]  # negative ones and IndexError as of any sequence
        return Clip(
            Path(os.fsdecode(self.paths[row].tobytes())),
            tuple(self.labels[row].tolist()),
            _text(self.groups, row),
            0.0 if self.starts is None else float(self.starts[row]),
            None if self.stops is None or np.isinf(self.stops[row]) else float(self.stops[row]),
            _text(self.tracks, row),
        )

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ClipList):
            return all(_same(getattr(self, name), getattr(other, name)) for name in self.__slots__)
        if isinstance(other, Sequence):
            return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __add__(self, other: Iterable[Clip]) -> "ClipList":
        return join([self, ClipList.of(other)])

    def __repr__(self) -> str:
        return f"ClipList({len(self)} clips)"

    def take(self, rows: Sequence[int] | Index) -> "ClipList":
        """Those of the clips, in that order."""
        chosen = np.asarray(rows, dtype=np.int64)

        def ragged(column: Ragged | None) -> Ragged | None:
            return None if column is None else column.take(chosen)

        return ClipList(
            self.paths.take(chosen),
            self.labels.take(chosen),
            ragged(self.groups),
            None if self.starts is None else self.starts[chosen],
            None if self.stops is None else self.stops[chosen],
            ragged(self.tracks),
        )

    def in_order(self) -> "ClipList":
        """By path, track and start."""
        paths, tracks = list(self.paths.texts()), None if self.tracks is None else list(self.tracks.texts())
        rows = sorted(range(len(self)), key=paths.__getitem__)
        if tracks is not None or self.starts is not None:
            starts = [0.0] * len(self) if self.starts is None else self.starts.tolist()
            rows.sort(key=lambda row: (paths[row], b"" if tracks is None else tracks[row], starts[row]))
        return self.take(rows)

    def keys(self) -> Index:
        """A number for each clip by its sound (path, track, start and stop), the same for the same sound within this
        process; rarely the same for another."""
        keys = np.fromiter(map(hash, self.paths.texts()), np.int64, len(self))
        for column in (self.starts, self.stops):
            if column is not None:
                keys = keys * 1_000_003 + column.view(np.int64)
        if self.tracks is not None:
            keys = keys * 1_000_003 + np.fromiter(map(hash, self.tracks.texts()), np.int64, len(self))
        return keys

    def relabelled(self, label_of: Sequence[int]) -> "ClipList":
        """With `label_of[i]` for the label i."""
        labels = Ragged(np.asarray(label_of, np.int32)[self.labels.values], self.labels.ends)
        return ClipList(self.paths, labels, self.groups, self.starts, self.stops, self.tracks)

    def label_counts(self, classes: int) -> Index:
        """How many of the clips have each of the labels 0 to `classes` - 1."""
        return np.bincount(self.labels.values, minlength=classes)

    def digest(self) -> str:
        """SHA-256 over all that the clips say, the sounds themselves left out."""
        digest = hashlib.sha256()
        for name in self.__slots__:
            column = getattr(self, name)
            arrays = (column.values, column.ends) if isinstance(column, Ragged) else (column,)
            for values in arrays:
                digest.update(f"{name} {None if values is None else len(values)}".encode())
                digest.update(b"" if values is None else np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()


def join(lists: Sequence[ClipList]) -> ClipList:
    """The clips of several lists, one after the other."""
    paths, labels = _joined(lists, "paths"), _joined(lists, "labels")
    if paths is None or labels is None:
        return ClipWriter().done()
    starts, stops = _joined_numbers(lists, "starts", 0.0), _joined_numbers(lists, "stops", np.inf)
    return ClipList(paths, labels, _joined(lists, "groups"), starts, stops, _joined(lists, "tracks"))


def _joined(lists: Sequence[ClipList], name: str) -> Ragged | None:
    columns = {id(clips): getattr(clips, name) for clips in lists}
    if not any(columns.values()):
        return None
    filled = [columns[id(clips)] or Ragged.empty(len(clips)) for clips in lists]
    shifts = np.cumsum([0, *(len(column.values) for column in filled[:-1])])
    ends = [column.ends + shift for column, shift in zip(filled, shifts, strict=True)]
    kept = next(column for column in columns.values() if column)
    return Ragged(np.concatenate([c.values for c in filled], dtype=kept.values.dtype), np.concatenate(ends))


def _joined_numbers(lists: Sequence[ClipList], name: str, missing: float) -> NDArray[np.float64] | None:
    if all(getattr(clips, name) is None for clips in lists):
        return None
    columns = (np.full(len(c), missing) if getattr(c, name) is None else getattr(c, name) for c in lists)
    return np.concatenate(list(columns))


class _Texts:
    """Rows of text as they come."""

    def __init__(self, empty: int = 0) -> None:
        self._kept, self._ends = bytearray(), array("q", bytes(8 * empty))

    def append(self, text: str | None) -> None:
        if text is not None:
            self._kept += text.encode("utf-8", "surrogateescape")  # as os.fsencode, a third of its time
        self._ends.append(len(self._kept))

    def ragged(self) -> Ragged:
        return Ragged(np.frombuffer(bytes(self._kept), np.uint8), np.array(self._ends, np.int64))


class ClipWriter:
    """Makes a `ClipList`, clip by clip, without making a `Clip` of each."""

    def __init__(self) -> None:
        self._paths = _Texts()
        self._labels, self._label_ends = array("i"), array("q")
        self._groups: _Texts | None = None
        self._tracks: _Texts | None = None
        self._times: dict[int, tuple[float, float]] = {}

    def add(
        self,
        path: str,
        labels: Iterable[int],
        group: str | None = None,
        start: float = 0.0,
        stop: float | None = None,
        track: str | None = None,
    ) -> None:
        """One more; the arguments are those of a `Clip`, with its path as text.

        Raises:
            DataError: a segment that ends before it begins.
        """
        row = len(self._label_ends)
        if start or stop is not None:
            check_segment(path, start, stop)
            self._times[row] = (start, np.inf if stop is None else stop)
        if "//" in path or "/." in path or path[:1] == ".":
            path = str(Path(path))  # one name for one file: ./a.wav is a.wav
        self._paths.append(path)
        self._labels.extend(labels)
        self._label_ends.append(len(self._labels))
        if group is not None and self._groups is None:
            self._groups = _Texts(row)
        if self._groups is not None:
            self._groups.append(group)
        if track is not None and self._tracks is None:
            self._tracks = _Texts(row)
        if self._tracks is not None:
            self._tracks.append(track)

    def done(self) -> ClipList:
        """The clips so far."""
        starts, stops = np.zeros(len(self._label_ends)), np.full(len(self._label_ends), np.inf)
        for row, times in self._times.items():
            starts[row], stops[row] = times
        return ClipList(
            self._paths.ragged(),
            Ragged(np.array(self._labels, np.int32), np.array(self._label_ends, np.int64)),
            None if self._groups is None else self._groups.ragged(),
            starts if starts.any() else None,
            None if np.isinf(stops).all() else stops,
            None if self._tracks is None else self._tracks.ragged(),
        )


def _text(column: Ragged | None, row: int) -> str | None:
    return None if column is None else os.fsdecode(column[row].tobytes()) or None


def _same(one: Any, two: Any) -> bool:
    both = isinstance(one, np.ndarray) and isinstance(two, np.ndarray)
    return np.array_equal(one, two) if both else one is two or (type(one) is type(two) and bool(one == two))
