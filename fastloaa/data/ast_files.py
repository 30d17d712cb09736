"""The data files of AST (https://github.com/YuanGongND/ast): JSON lists of files and labels, and a table of classes."""

import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from fastloaa.data.class_table import CLASSES_GLOB, labels_of
from fastloaa.data.clip import DataError
from fastloaa.data.clip_list import ClipList, ClipWriter
from fastloaa.data.sounds import Files, has_file, matching

AST_LAYOUT = f"datafiles/*train*.json and datafiles/*eval*.json, with {CLASSES_GLOB} beside them or beside datafiles/"
_EXPECTED = 'expected {"data": [{"wav": path, "labels": "mid,mid"}]}; correct it'
_FOLDERS = (".", "datafiles", "data/datafiles")
_ABOVE = 3  # data/datafiles/x.json in the folder the script ran in; one more for a folder that was moved into another


class ListedClips(NamedTuple):
    """Clips of each split; `fold` is the one that they are of, None where there are none."""

    train: ClipList
    validation: ClipList
    test: ClipList
    fold: int | None = None


def find_data_files(root: Path) -> Path | None:
    """The folder of AST's JSON files: `root`, or `datafiles` in it or in its `data`; None if there are none."""
    for name in _FOLDERS:
        folder = root / name
        if matching(folder, "*train*.json") and class_tables(folder):
            return folder
    return None


def class_tables(folder: Path) -> list[Path]:
    """The tables of classes for the JSON files of a folder: in it, or else in the one above."""
    return matching(folder, CLASSES_GLOB) or matching(folder.resolve().parent, CLASSES_GLOB)


def read_data_files(folder: Path, labels: dict[str, int], fold: int) -> ListedClips:
    """What the JSON files of a folder list.

    Raises:
        DataError: no `*eval*.json`, none of this fold, one that is not what it should be, a label that is not in
            `labels`, or a file that is listed but missing.
    """
    train, valid, test = (_fold(folder, pattern, fold) for pattern in ("*train*.json", "*valid*.json", "*eval*.json"))
    if not test:
        raise DataError(f"{folder}: no *eval*.json; expected AST's layout, {AST_LAYOUT}")

    known = Files()

    def read(files: list[Path]) -> ClipList:
        writer = ClipWriter()
        for file in files:
            _read(file, labels, known, writer)
        return writer.done()

    has_folds = any(map(_is_numbered, (*train, *test)))
    return ListedClips(read(train), read(valid), read(test), fold if has_folds else None)


def _fold(folder: Path, pattern: str, fold: int) -> list[Path]:
    """The JSON files with such a name: where names end in numbers, those of the fold."""
    found = matching(folder, pattern)
    if not any(map(_is_numbered, found)):
        return found
    chosen = [path for path in found if re.search(rf"(?<!\d){fold}$", path.stem)]
    if not chosen:
        raise DataError(f"{folder}: no {pattern} of fold {fold}; give the number of one that is there as the test fold")
    return chosen


def _is_numbered(path: Path) -> bool:
    return path.stem[-1].isdigit()


def _read(file: Path, labels: dict[str, int], files: Files, writer: ClipWriter) -> None:
    """Add the clips of one JSON file."""
    try:
        # Two words of each entry are kept, as it is read: AudioSet's has two million.
        read = json.loads(file.read_text(encoding="utf-8"), object_hook=_entry)
        pairs = [(str(wav), str(mids)) for wav, mids in read["data"]]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise DataError(f"{file}: {_EXPECTED}") from error
    base = _base(file, [wav for wav, _ in pairs])
    for number, (wav, mids) in enumerate(pairs):
        where = f"{file} entry {number}"
        path = os.path.join(base, wav)  # noqa: PTH118  # an absolute path stays what it is
        if not files.has(path):
            raise DataError(f"{where}: no file {path}; put it there or delete the entry")
        writer.add(path, labels_of(mids, labels, where))


def _entry(values: dict[str, Any]) -> Any:
    return (values["wav"], values["labels"]) if "wav" in values and "labels" in values else values


def _base(file: Path, wavs: list[str]) -> Path:
    """The folder that relative paths start from: the file's own or, as AST's scripts leave them, one above it.

    It is the first in which one of the files is; the file's own if there is none.
    """
    relative = [wav for wav in wavs if not wav.startswith("/")]
    above = file.parent.resolve().parents[:_ABOVE]
    return next((base for base in (file.parent, *above) if any(has_file(base / wav) for wav in relative)), file.parent)
