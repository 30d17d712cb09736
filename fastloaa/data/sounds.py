"""The sound files below a folder: the one search of all commands and data sets."""

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from fastloaa.audio.formats import is_sound, sound_suffixes
from fastloaa.audio.stored import LOG_MEL_SUFFIXES, is_log_mel
from fastloaa.text import printable

_READ_BEFORE = "links to folders that are read by another path"
_NOT_OPENED = "folders that cannot be opened"
_NOWHERE = "links that lead nowhere"
_NO_FILE = "devices and pipes named like sounds"


class LeftOut:
    """What is not used though it was found or listed: by reason, counted, and the first few named."""

    _NAMED = 3

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._names: dict[str, list[str]] = {}

    def add(self, reason: str, name: str | Path) -> None:
        """One more; `reason` is a plural that goes before the count: "links that lead nowhere"."""
        self._counts[reason] = self._counts.get(reason, 0) + 1
        names = self._names.setdefault(reason, [])
        if len(names) < self._NAMED:
            names.append(printable(name))

    def lines(self) -> tuple[str, ...]:
        """A line for each reason: `links that lead nowhere: 4 (a.wav, b.wav, c.wav, ...)`."""
        return tuple(
            f"{reason}: {count} ({some_of(self._names[reason], count)})" for reason, count in self._counts.items()
        )


def some_of(names: Sequence[str], count: int | None = None) -> str:
    """The first three of the names, and dots if there are more than those."""
    more = ", ..." if (len(names) if count is None else count) > min(len(names), 3) else ""
    return ", ".join(names[:3]) + more


def sounds_below(root: Path, left_out: LeftOut) -> list[Path]:
    """The sound files below a folder at any depth, known by their suffix, in alphabetical order.

    Hidden files and folders are no part of it, such as `._clip.wav`, which macOS leaves behind. Links to files and
    folders are followed. A folder that several paths lead to is read once, by a path without links if it has one, so
    that loops end and none of its files comes twice.

    Args:
        root: a folder.
        left_out: is told of folders that cannot be opened or that were read before, and of links that lead nowhere.

    Raises:
        OSError: `root` itself cannot be opened.
    """
    return list(map(Path, _names_below(root, left_out, is_sound)))


def clips_below(root: Path, left_out: LeftOut) -> list[Path]:
    """`sounds_below`, or the stored spectrograms (`.npy`, `.npz`) below a folder that has no sounds."""
    return list(map(Path, clip_names_below(root, left_out)))


def clip_names_below(root: Path, left_out: LeftOut) -> list[str]:
    """`clips_below` as text, which for millions of them takes a tenth of the time."""
    return _names_below(root, left_out, is_sound) or _names_below(root, LeftOut(), is_log_mel)


def log_mels_below(root: Path, left_out: LeftOut) -> list[Path]:
    """The stored spectrograms below a folder, found as `sounds_below` finds sounds."""
    return list(map(Path, _names_below(root, left_out, is_log_mel)))


def clip_suffixes() -> frozenset[str]:
    """Suffixes of the files that this installation reads as clips, in lower case."""
    return sound_suffixes() | LOG_MEL_SUFFIXES


def _names_below(root: Path, left_out: LeftOut, is_one: Callable[[str], bool]) -> list[str]:
    """The files whose names are of one kind."""
    found: list[str] = []
    for folder, entries in _walk(root, left_out):
        before = "" if folder == Path() else os.path.join(folder, "")  # noqa: PTH118 (as Path joins: no "./")
        for entry in entries:
            ours = is_one(entry.name)
            if ours and _is_file(entry):
                found.append(before + entry.name)
            elif entry.is_symlink() and not (_is_file(entry) or _is_folder(entry)):
                left_out.add(_NOWHERE, (folder / entry.name).relative_to(root))
            elif ours and not _is_folder(entry):
                left_out.add(_NO_FILE, (folder / entry.name).relative_to(root))
    return sorted(found)


def folders_below(root: Path) -> list[Path]:
    """A folder and those below it, as `sounds_below` goes through them."""
    return [folder for folder, _ in _walk(root, LeftOut())]


def _walk(root: Path, left_out: LeftOut) -> Iterator[tuple[Path, list["os.DirEntry[str]"]]]:
    """Each folder with its entries."""
    folders, links = [root], list[Path]()
    read: set[str] = set()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        place = os.path.realpath(folder)
        if place in read:
            left_out.add(_READ_BEFORE, folder.relative_to(root))
            continue
        read.add(place)
        try:
            with os.scandir(folder) as scan:
                entries = sorted((entry for entry in scan if entry.name[0] != "."), key=lambda entry: entry.name)
        except OSError:
            if folder == root:
                raise
            left_out.add(_NOT_OPENED, folder.relative_to(root))
            continue
        yield folder, entries
        for entry in entries:
            if _is_folder(entry):
                (links if entry.is_symlink() else folders).append(folder / entry.name)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


def _is_file(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_file()
    except OSError:  # likewise
        return False


def matching(folder: Path, pattern: str) -> list[Path]:
    """What in a folder has a name like that, in alphabetical order; hidden files, such as `._x.csv`, are left out."""
    return sorted(path for path in folder.glob(pattern) if path.name[0] != ".")


def has_file(path: Path) -> bool:
    """Whether there is a file of this name; none can be, where the name is too long for one.

    Raises:
        OSError: a folder on the way cannot be looked into.
    """
    try:
        return path.is_file()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise


class Files:
    """Whether files are there, asked for many: a folder of which much is asked is listed instead."""

    _ASKED = 200  # questions to a folder before it is listed

    def __init__(self) -> None:
        self._asked: dict[str, int] = {}
        self._listed: dict[str, set[str]] = {}

    def has(self, path: str) -> bool:
        """`has_file`, errors included."""
        folder, _, name = path.rpartition("/")
        if name in self._listed.get(folder, ()):
            return True
        asked = self._asked[folder] = self._asked.get(folder, 0) + 1
        if asked == self._ASKED:
            with suppress(OSError), os.scandir(folder or ("/" if path.startswith("/") else ".")) as scan:
                self._listed[folder] = {entry.name for entry in scan if _is_file(entry)}
        return has_file(Path(path))
