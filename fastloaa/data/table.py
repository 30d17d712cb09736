"""CSV files that describe a data set."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from fastloaa.data.clips import DataError
from fastloaa.text import encodable


def read_table(
    path: Path, columns: Sequence[str], header: Sequence[str] | None = None, files: Sequence[str] = ()
) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a CSV file as (where, cells): `where` names file and line for error messages.

    Args:
        columns: those that must be there and filled in.
        header: names of all columns, for a file whose first line does not give them; there, lines that begin with #
            are comments.
        files: columns of file names, which may hold bytes that are not UTF-8, as file names may.

    Raises:
        DataError: not UTF-8 text, no rows, a column twice, or a required column or one of its cells is missing.
    """
    empty = True
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.DictReader(file, header, skipinitialspace=True)
            names = [name for name in reader.fieldnames or () if name]
            if any(encodable(name) != name for name in names):
                raise DataError(f"{path}: not a CSV file in UTF-8 (its first line is none); save it as one")
            if twice := [name for name, count in Counter(names).items() if count > 1]:
                raise DataError(f"{path}: two columns are named {twice[0]}; rename one")
            if missing := [column for column in columns if column not in names]:
                found = ", ".join(names) or "none"
                raise DataError(f"{path}: missing columns {', '.join(missing)}; found: {found}; add them to the header")
            for row in reader:
                where = f"{path} line {reader.line_num}"
                cells = {name: (value or "").strip() for name, value in row.items() if name}
                if header is not None and cells[header[0]].startswith("#"):
                    continue
                for name, cell in cells.items():
                    if not cell.isascii() and name not in files and encodable(cell) != cell:
                        raise DataError(f"{where}: {name} is not UTF-8 text; save the table as UTF-8")
                if not all(map(cells.__getitem__, columns)):
                    blank = [column for column in columns if not cells[column]]
                    raise DataError(f"{where}: no {', '.join(blank)}; fill it in or delete the line")
                empty = False
                yield where, cells
    except csv.Error as error:
        raise DataError(f"{path}: not a CSV file in UTF-8 ({error}); save it as one") from error
    if empty:
        raise DataError(f"{path}: no rows below the header; expected one per clip")


def integer(text: str, column: str, where: str) -> int:
    """The integer in a cell.

    Raises:
        DataError: it holds something else.
    """
    try:
        return int(text)
    except ValueError:
        raise DataError(f"{where}: {column} {text!r}; expected an integer") from None
