"""Sounds with `metadata.csv` or `metadata.jsonl`, as Hugging Face's audiofolder has them.

https://huggingface.co/docs/datasets/audio_dataset
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastloaa.data.clips import AudioSplits, DataError
from fastloaa.data.divide import Listed, divide
from fastloaa.data.sounds import LeftOut, clips_below, has_file
from fastloaa.data.split_folders import split_of
from fastloaa.data.table import read_table
from fastloaa.text import encodable, printable

AUDIOFOLDER_LAYOUT = "metadata.csv or metadata.jsonl (file_name, label), beside the sounds or in train/ and test/"
_NAMES = ("metadata.csv", "metadata.jsonl")
_LABELS = ("label", "labels")


def find_metadata(root: Path) -> list[Path]:
    """The files of metadata: in the folder itself, or else in the folders directly below; only those with file names.

    Raises:
        DataError: there is nothing but `metadata.parquet`.
    """
    for pattern in ("", "*/"):
        found = sorted(path for name in _NAMES for path in root.glob(pattern + name))
        found = [path for path in found if not path.parent.name.startswith(".") and _names_files(path)]
        if found:
            return found
        if parquet := sorted(root.glob(f"{pattern}metadata.parquet")):
            raise DataError(f"{parquet[0]}: not read; save it as metadata.csv or metadata.jsonl")
    return []


def load_audiofolder(root: str | Path, validation: float | None = None, seed: int = 0) -> AudioSplits:
    """A data set in the layout of Hugging Face's audiofolder with metadata.

    `metadata.csv` or `metadata.jsonl` lists the files, in a column `file_name` (or one that ends in `_file_name`),
    relative to its own folder. `label` or `labels` is the class; in `metadata.jsonl` it may be a list of several.
    The splits are those of a column `split`, or of the folders `train`, `validation` and `test` that the files are in
    (by any of their names, see `load_split_folders`); without either, every class is divided at random, as
    `load_folder` does. Sounds that are not listed are left out and counted.

    Args:
        root: folder with one file of metadata, or with folders that have one each.
        validation: fraction to validate on where no clips are listed for it; None: 0.1 where every class is divided at
            random, else none.
        seed: of what is chosen at random.

    Raises:
        DataError: no metadata, no column of labels, a file that is missing, a split of another name, or fewer than
            two classes.
    """
    root = Path(root)
    files = find_metadata(root)
    if not files:
        raise DataError(f"{root}: no metadata with a column file_name; expected {AUDIOFOLDER_LAYOUT}")
    listed = [clip for file in files for clip in _read(file, root)]
    without = [clip for clip in listed if not clip.part]
    if without and len(without) < len(listed):
        raise DataError(
            f"{root}: some clips are in a split and {printable(without[0].path)} is in none; expected train, "
            "validation or test for each, in a column split or as a folder"
        )
    left_out = LeftOut()
    known = {clip.path for clip in listed}
    for path in clips_below(root, left_out):
        if path not in known:
            left_out.add("sounds that the metadata does not list", path.relative_to(root))
    by = "random" if without else "split"
    name = printable(root.resolve().name)
    return divide(name, root, listed, by, validation=validation, seed=seed, left_out=left_out)  # type: ignore[arg-type]


def _names_files(file: Path) -> bool:
    """Whether a file of metadata has a column of file names; other programs call theirs metadata.csv as well."""
    with file.open("rb") as opened:
        return b"file_name" in opened.readline(1 << 16)


def _file_column(row: dict[str, Any]) -> str | None:
    return next((name for name in row if name == "file_name" or name.endswith("_file_name")), None)


def _rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, cells) of each line."""
    if file.suffix == ".csv":
        yield from read_table(file, (), files=("file_name",))
        return
    with file.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{file} line {number}"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{where}: not JSON ({error}); correct it") from error
            if not isinstance(row, dict):
                raise DataError(f'{where}: expected an object such as {{"file_name": "1.wav", "label": "dog"}}')
            yield where, row


def _read(file: Path, root: Path) -> Iterator[Listed]:
    """The clips that one file of metadata lists."""
    for where, row in _rows(file):
        column = _file_column(row)
        if column is None or not isinstance(row[column], str) or not row[column]:
            raise DataError(f"{where}: no file_name; fill it in or delete the line")
        path = file.parent / row[column]  # an absolute path stays what it is
        if not has_file(path):
            raise DataError(f"{where}: no file {path}; put it there or delete the line")
        yield Listed(path, _labels_of(row, where), _split_of(row, path, root, where))


def _labels_of(row: dict[str, Any], where: str) -> tuple[str, ...]:
    column = next((name for name in _LABELS if name in row), None)
    if column is None:
        raise DataError(
            f"{where}: no column label; found: {', '.join(map(encodable, row))}; add one, or take the metadata "
            "away for folders to be the labels"
        )
    given = row[column]
    labels = given if isinstance(given, list) else [given]
    if not labels or not all(isinstance(label, str | int) and str(label).strip() for label in labels):
        raise DataError(f"{where}: {column} {given!r}; expected the name of a class, or a list of such names")
    return tuple(dict.fromkeys(encodable(str(label).strip()) for label in labels))


def _split_of(row: dict[str, Any], path: Path, root: Path, where: str) -> str:
    """train, validation or test; "" if nothing says which."""
    if "split" in row:
        if not (split := split_of(str(row["split"]))):
            raise DataError(f"{where}: split {row['split']!r}; expected train, validation or test")
        return split
    folders = path.relative_to(root).parts[:-1] if path.is_relative_to(root) else ()
    return next(filter(None, map(split_of, folders)), "")
