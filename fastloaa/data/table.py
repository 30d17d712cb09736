"""CSV files that describe a data set."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from fastloaa.data.clips import DataError


def read_table(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a CSV file with a header, as (where, cells): `where` names file and line for error messages.

    Raises:
        DataError: not UTF-8 text, no rows, or a required column or one of its cells is missing.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            if missing := [column for column in columns if column not in (reader.fieldnames or ())]:
                found = ", ".join(reader.fieldnames or ()) or "none"
                raise DataError(f"{path}: missing columns {', '.join(missing)}; found: {found}; add them to the header")
            rows = [(f"{path} line {reader.line_num}", row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV file in UTF-8 ({error}); save it as one") from error
    if not rows:
        raise DataError(f"{path}: no rows below the header; expected one per clip")
    for where, row in rows:
        cells = {name: (value or "").strip() for name, value in row.items() if name}
        if empty := [column for column in columns if not cells[column]]:
            raise DataError(f"{where}: no {', '.join(empty)}; fill it in or delete the line")
        yield where, cells
