"""Folders of splits or folds with label folders in them: `train/dog/1.wav`, `fold1/dog/1.wav`, or `dog/train/1.wav`."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from fastloaa.data.clips import AudioSplits, DataError
from fastloaa.data.divide import Listed, divide
from fastloaa.data.folder import NO_LABEL, readable
from fastloaa.data.sounds import LeftOut, clips_below, some_of
from fastloaa.text import printable

SPLIT_FOLDERS_LAYOUT = "train/label/clip.wav and test/label/clip.wav, perhaps validation/label/clip.wav"
FOLD_FOLDERS_LAYOUT = "fold1/label/clip.wav, fold2/label/clip.wav, ..."

# The words that Hugging Face's audiofolder knows.
_WORDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}


def split_of(name: str) -> str | None:
    """The split that a folder of this name holds, in any case: `Train`, `val`, `dev`; None for another name."""
    return _WORDS.get(name.lower())


def fold_of(name: str) -> str | None:
    """The number of the fold that a folder of this name holds: `fold1`, `Fold_02`; None for another name."""
    match = re.fullmatch(r"fold[ _-]?(\d{1,6})", name, re.IGNORECASE | re.ASCII)
    return str(int(match[1])) if match else None


class Layout(NamedTuple):
    """How the folders of a data set divide it: by split or fold, named at `level` 0 or 1 of the paths in it."""

    by: Literal["split", "fold"]
    level: int


def find_layout(root: Path, sounds: Iterable[Path]) -> Layout | None:
    """The layout by the names of folders; None where the folders of the first level are labels.

    Raises:
        DataError: folders of splits or folds beside others.
    """
    parts = [path.relative_to(root).parts for path in sounds]
    known: tuple[tuple[Literal["split", "fold"], Callable[[str], str | None]], ...] = (
        ("split", split_of),
        ("fold", fold_of),
    )
    first = sorted({part[0] for part in parts if len(part) > 1})
    second = sorted({part[1] for part in parts if len(part) > 2})
    for by, which in known:
        named = [name for name in first if which(name)]
        if named and len(named) == len(first):
            return Layout(by, 0)
        found = {which(name) for name in named}
        if len(found) > 1 and (by == "fold" or "train" in found):
            others = [name for name in first if name not in named]
            raise DataError(
                f"{root}: the folders {_folders(named)} are {by}s, but {_folders(others)} beside them no {by}; "
                "take that out, or say in a split.csv what belongs where"
            )
        below = {which(name) for name in second}
        if len(below) > 1 and None not in below and all(len(part) != 2 for part in parts):
            return Layout(by, 1)
    return None


def load_split_folders(
    root: str | Path, test_fold: int = 1, validation: float | None = None, seed: int = 0
) -> AudioSplits:
    """A data set whose folders are splits or folds, with a folder per class in each, or the other way round.

    - `train/dog/1.wav`, `test/dog/2.wav`, as ImageFolder, Hugging Face's audiofolder and Kaggle have it. Splits are
      called train or training; validation, valid, val or dev; test, testing, eval or evaluation; in any case.
    - `fold1/dog/1.wav`, `fold2/dog/2.wav`, ...: `test_fold` is for testing, the others are for training.
    - `dog/train/1.wav` and `dog/fold1/1.wav` likewise.

    Args:
        root: the folder; it gives the data set its name.
        test_fold: with folds, the one to test on.
        validation: fraction of the training clips to validate on, by class; no say where there is a folder for it.
        seed: of the choice of validation clips.

    Raises:
        DataError: another layout, no test or no training folder, two folders for one split, clips without a label
            folder, a class to test on that is not trained, no such fold, or a class none of whose sounds can be read.
    """
    root = Path(root)
    left_out = LeftOut()
    sounds = clips_below(root, left_out)
    layout = find_layout(root, sounds)
    if layout is None:
        raise DataError(f"{root}: no folders of splits or folds; expected {SPLIT_FOLDERS_LAYOUT}")
    which = split_of if layout.by == "split" else fold_of
    folders: dict[str, str] = {}  # split or fold -> the folder that is called so
    clips: dict[str, list[Path]] = {}
    part_of: dict[Path, str] = {}
    for path in sounds:
        parts = path.relative_to(root).parts
        if len(parts) > layout.level + 1:
            folder = parts[layout.level]
            part_of[path] = which(folder) or ""
            if (other := folders.setdefault(part_of[path], folder)) != folder:
                raise DataError(
                    f"{root}: {_folders([other, folder])} are both {part_of[path]}; rename or join them, "
                    "or say in a split.csv what belongs where"
                )
        if len(parts) > 2:
            clips.setdefault(printable(parts[1 - layout.level]), []).append(path)
        else:
            left_out.add(NO_LABEL, path.relative_to(root))
    seen = _folders(folders.values())
    if not clips:
        raise DataError(
            f"{root}: {seen} are {layout.by}s, but the clips in them are in no label folders; expected "
            f"{SPLIT_FOLDERS_LAYOUT if layout.by == 'split' else FOLD_FOLDERS_LAYOUT}, or a table with the labels"
        )
    clips = readable(root, clips, left_out)
    listed = [Listed(path, (label,), part_of[path]) for label, paths in clips.items() for path in paths]
    if layout.by == "split":
        _check(root, listed, seen)
    elif len(folders) < 2:
        raise DataError(f"{root}: only one fold, {seen}; expected two or more: {FOLD_FOLDERS_LAYOUT}")
    return divide(
        printable(root.resolve().name),
        root,
        listed,
        layout.by,
        test_fold=test_fold,
        validation=validation,
        seed=seed,
        left_out=left_out,
    )


def _check(root: Path, listed: list[Listed], seen: str) -> None:
    """Raise DataError where a split is not there, or tests on what is not trained."""
    labels = {split: {clip.labels[0] for clip in listed if clip.part == split} for split in _WORDS.values()}
    for split in ("train", "test"):
        if not labels[split]:
            raise DataError(
                f"{root}: the folders are splits, {seen}, but none with label folders is for {split}; expected "
                f"{SPLIT_FOLDERS_LAYOUT}; rename one, or give a folder of labels alone, which is divided at random"
            )
    for split in ("validation", "test"):
        if new := sorted(labels[split] - labels["train"]):
            raise DataError(
                f"{root}: classes in {split} that are not in train: {some_of(new)}; correct the names of the folders, "
                "or take these out"
            )


def _folders(names: Iterable[str]) -> str:
    """`train/, test/`."""
    return some_of([f"{printable(name)}/" for name in names])
