"""CSV files that describe a data set."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from fastloaa.data.clips import DataError


def read_table(
    path: Path, columns: Sequence[str], header: Sequence[str] | None = None
) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a CSV file as (where, cells): `where` names file and line for error messages.

    Args:
        columns: those that must be there and filled in.
        header: names of all columns, for a file whose first line does not give them; there, lines that begin with #
            are comments.

    Raises:
        DataError: not UTF-8 text, no rows, or a required column or one of its cells is missing.
    """
    empty = True
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, header, skipinitialspace=True)
            if missing := [column for column in columns if column not in (reader.fieldnames or ())]:
                found = ", ".join(reader.fieldnames or ()) or "none"
                raise DataError(f"{path}: missing columns {', '.join(missing)}; found: {found}; add them to the header")
            for row in reader:
                where = f"{path} line {reader.line_num}"
                cells = {name: (value or "").strip() for name, value in row.items() if name}
                if header is not None and cells[header[0]].startswith("#"):
                    continue
                if blank := [column for column in columns if not cells[column]]:
                    raise DataError(f"{where}: no {', '.join(blank)}; fill it in or delete the line")
                empty = False
                yield where, cells
    except (UnicodeDecodeError, csv.Error) as error:
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
