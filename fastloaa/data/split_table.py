"""Splits from a table: which clips take part, in which split or fold, and what belongs together."""

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Literal

from fastloaa.data.clips import SPLITS, AudioSplits, DataError
from fastloaa.data.divide import Listed, divide
from fastloaa.data.sounds import Files
from fastloaa.data.table import integer, read_table
from fastloaa.text import printable

SPLIT_FILE = "split.csv"
"""The name by which a folder's table is found; elsewhere it may have any."""


def load_split_table(table: str | Path, test_fold: int = 1, validation: float = 0.0, seed: int = 0) -> AudioSplits:
    """A data set from a CSV file with a line per clip; files that it does not name are left out.

    Columns:

    - `path`: relative to the table's folder, or absolute; the one column that need not be UTF-8.
    - `split`: train, validation or test. Or else `fold`, an integer: one fold is for testing and the others are for
      training, as with ESC-50. A fold per speaker, for example, makes the rounds of leave-one-speaker-out.
    - `label`, optional: the class. Without this column, it is the first folder of `path`.
    - `group`, optional: clips of one group must be in one split.

    Classes are in alphabetical order.

    Args:
        table: the file.
        test_fold: with a column `fold`, the fold to test on.
        validation: fraction of the training clips to validate on, by class, with groups whole; no say where the table
            lists validation clips.
        seed: of the choice of validation clips.

    Raises:
        DataError: a missing column, both `split` and `fold` or neither, an unknown split or fold, a file that is
            missing, without a label or, where its folder would be the label, in none; or fewer than two classes.
    """
    table = Path(table)
    rows = read_table(table, ("path",), files=("path",))
    first = next(rows)
    columns = first[1].keys()
    if ("split" in columns) == ("fold" in columns):
        raise DataError(f"{table}: expected a column split (train, validation, test) or a column fold, one of them")
    by: Literal["split", "fold"] = "split" if "split" in columns else "fold"
    files = Files()

    def listed() -> Iterator[Listed]:
        for where, row in chain([first], rows):
            path, label = _file_and_label(table, row, where, files)
            yield Listed(path, (label,), _part(row[by], by, where), row.get("group") or None)

    name = table.parent.resolve().name if table.name == SPLIT_FILE else table.stem
    return divide(printable(name), table, listed(), by, test_fold=test_fold, validation=validation, seed=seed)


def _part(text: str, column: str, where: str) -> str:
    """Where a clip belongs: the name of a split, or the number of a fold."""
    if column == "fold":
        return str(integer(text, column, where))
    if text not in SPLITS:
        raise DataError(f"{where}: split {text!r}; expected one of {', '.join(SPLITS)}")
    return text


def _file_and_label(table: Path, row: dict[str, str], where: str, files: Files) -> tuple[str, str]:
    if "label" in row:
        label = row["label"]
        if not label:
            raise DataError(f"{where}: no label; fill it in or delete the line")
    else:
        given = Path(row["path"])
        if len(given.parts) < 2 or ".." in given.parts or given.is_absolute():
            raise DataError(f"{where}: {row['path']!r} is not in a label folder; expected label/clip.wav")
        label = printable(given.parts[0])
    path = os.path.join(table.parent, row["path"])  # noqa: PTH118  # an absolute path stays what it is
    if not files.has(path):
        raise DataError(f"{where}: no file {path}; put it there or delete the line")
    return path, label
