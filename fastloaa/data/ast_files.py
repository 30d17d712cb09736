"""The data files of AST (https://github.com/YuanGongND/ast): JSON lists of files and labels, and a table of classes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fastloaa.data.class_table import CLASSES_GLOB, labels_of
from fastloaa.data.clips import Clip, DataError
from fastloaa.data.sounds import has_file

AST_LAYOUT = f"datafiles/*train*.json and datafiles/*eval*.json, with {CLASSES_GLOB} beside them or beside datafiles/"
_EXPECTED = 'expected {"data": [{"wav": path, "labels": "mid,mid"}]}; correct it'
_FOLDERS = (".", "datafiles", "data/datafiles")
_ABOVE = 3  # data/datafiles/x.json in the folder the script ran in; one more for a folder that was moved into another


class ListedClips(NamedTuple):
    """Clips of each split."""

    train: tuple[Clip, ...]
    validation: tuple[Clip, ...]
    test: tuple[Clip, ...]


def find_data_files(root: Path) -> Path | None:
    """The folder of AST's JSON files: `root`, or `datafiles` in it or in its `data`; None if there are none."""
    for name in _FOLDERS:
        folder = root / name
        if any(folder.glob("*train*.json")) and class_tables(folder):
            return folder
    return None


def class_tables(folder: Path) -> list[Path]:
    """The tables of classes for the JSON files of a folder: in it, or else in the one above."""
    return sorted(folder.glob(CLASSES_GLOB)) or sorted(folder.resolve().parent.glob(CLASSES_GLOB))


def read_data_files(folder: Path, labels: dict[str, int], fold: int) -> ListedClips:
    """What the JSON files of a folder list.

    Raises:
        DataError: no `*eval*.json`, none of this fold, one that is not what it should be, a label that is not in
            `labels`, or a file that is listed but missing.
    """
    train, valid, test = (_fold(folder, pattern, fold) for pattern in ("*train*.json", "*valid*.json", "*eval*.json"))
    if not test:
        raise DataError(f"{folder}: no *eval*.json; expected AST's layout, {AST_LAYOUT}")

    def read(files: list[Path]) -> tuple[Clip, ...]:
        return tuple(clip for file in files for clip in _read(file, labels))

    return ListedClips(read(train), read(valid), read(test))


def _fold(folder: Path, pattern: str, fold: int) -> list[Path]:
    """The JSON files with such a name: where names end in numbers, those of the fold."""
    found = sorted(folder.glob(pattern))
    if not any(path.stem[-1].isdigit() for path in found):
        return found
    chosen = [path for path in found if re.search(rf"(?<!\d){fold}$", path.stem)]
    if not chosen:
        raise DataError(f"{folder}: no {pattern} of fold {fold}; give the number of one that is there as the test fold")
    return chosen


def _read(file: Path, labels: dict[str, int]) -> Iterator[Clip]:
    """The clips of one JSON file."""
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))["data"]
        pairs = [(str(entry["wav"]), str(entry["labels"])) for entry in entries]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise DataError(f"{file}: {_EXPECTED}") from error
    base = _base(file, [wav for wav, _ in pairs])
    for number, (wav, mids) in enumerate(pairs):
        where = f"{file} entry {number}"
        path = base / wav  # an absolute path stays what it is
        if not has_file(path):
            raise DataError(f"{where}: no file {path}; put it there or delete the entry")
        yield Clip(path, labels_of(mids, labels, where))


def _base(file: Path, wavs: list[str]) -> Path:
    """The folder that relative paths start from: the file's own or, as AST's scripts leave them, one above it.

    It is the first in which one of the files is; the file's own if there is none.
    """
    relative = [wav for wav in wavs if not Path(wav).is_absolute()]
    above = file.parent.resolve().parents[:_ABOVE]
    return next((base for base in (file.parent, *above) if any(has_file(base / wav) for wav in relative)), file.parent)
