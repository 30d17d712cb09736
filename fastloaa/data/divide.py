"""From a list of clips with labels, and the split or fold of each, to the splits of a data set."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from fastloaa.data.clip import DataError
from fastloaa.data.clip_list import ClipList, ClipWriter, join
from fastloaa.data.clips import AudioSplits, stratified_split
from fastloaa.data.sounds import LeftOut

FOLDER_VALIDATION, FOLDER_TEST = 0.1, 0.2
"""Fractions of every class that are held out where a data set has no splits of its own."""


class Listed(NamedTuple):
    """A clip as a data set lists it: `part` is the name of its split, the number of its fold, or "" for neither."""

    path: str | Path
    labels: tuple[str, ...]
    part: str = ""
    group: str | None = None


def divide(
    name: str,
    where: str | Path,
    listed: Iterable[Listed],
    by: Literal["split", "fold", "random"],
    *,
    test_fold: int = 1,
    validation: float | None = None,
    test: float = FOLDER_TEST,
    seed: int = 0,
    left_out: LeftOut | None = None,
) -> AudioSplits:
    """The splits of the clips; classes are in alphabetical order.

    Args:
        name: of the data set.
        where: its file or folder, for error messages.
        by: what divides it: "split" (train, validation, test), "fold" (one is for testing, the others for training), or
            "random": every class is divided, with groups whole.
        test_fold: by fold, the one to test on.
        validation: fraction to validate on, by class, with groups whole: of the training clips, where none are listed
            for validation (no say where there are), or of all by random. None: none, or `FOLDER_VALIDATION` by random.
        test: fraction to test on, by random.
        seed: of what is held out at random.
        left_out: what the data set has besides.

    Raises:
        DataError: fewer than two classes, no such fold, fractions that leave nothing to train on, or what
            `AudioSplits` refuses.
    """
    first, seen, writers = "", dict[str, int](), defaultdict[str, ClipWriter](ClipWriter)
    for entry in listed:
        first = first or str(entry.path)
        labels = [seen.setdefault(label, len(seen)) for label in entry.labels]
        writers[entry.part].add(str(entry.path), labels, entry.group)
    classes = tuple(sorted(seen))
    if len(classes) < 2:
        only = f"only one class, {classes[0]!r}" if classes else "no class"
        raise DataError(f"{where}: {only}; expected clips of two or more")
    place = {label: index for index, label in enumerate(classes)}
    parts = {part: writer.done().relabelled([place[label] for label in seen]) for part, writer in writers.items()}
    none = ClipWriter().done()
    lines = () if left_out is None else left_out.lines()
    if by == "random":
        train, held_out, tested = _at_random(parts[""], validation, test, seed)
        if not tested:
            raise DataError(
                f"{where}: no class has two clips ({Path(first).name}, ...), of which one could be tested; add some"
            )
        return AudioSplits(name, classes, train, held_out, tested, left_out=lines)
    if by == "fold":
        if str(test_fold) not in parts:
            raise DataError(f"{where}: no fold {test_fold}; give a test fold of {', '.join(sorted(parts, key=int))}")
        name = f"{name} (test fold {test_fold})"
        tested = parts.pop(str(test_fold))
        parts = {"train": join(list(parts.values()))}
    else:
        tested = parts.get("test", none)
    train, held_out = parts.get("train", none), parts.get("validation", none)
    if by == "fold" or (validation and not held_out):
        train, held_out = stratified_split(train, validation or 0.0, seed)
    return AudioSplits(name, classes, train, held_out, tested, lines, test_fold if by == "fold" else None)


def _at_random(
    clips: ClipList, validation: float | None, test: float, seed: int
) -> tuple[ClipList, ClipList, ClipList]:
    """(train, validation, test) with the given fractions of every class."""
    validation = FOLDER_VALIDATION if validation is None else validation
    if not (validation >= 0 and test > 0 and validation + test < 1):
        raise DataError(
            f"validation={validation} and test={test} cannot be split off; "
            "expected validation >= 0, test > 0 and a sum below 1"
        )
    rest, tested = stratified_split(clips, test, seed)
    train, held_out = stratified_split(rest, validation / (1 - test), seed)
    return train, held_out, tested
