"""`fastloaa predict --out`: a table of what is heard in many recordings, which goes on where it was stopped."""

import importlib
import json
import sys
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastloaa.cli.answers import as_json, csv_line, progress
from fastloaa.errors import ArgumentError
from fastloaa.files import FileError, locked, replacing, writing
from fastloaa.text import encodable

if TYPE_CHECKING:  # what is heavy is imported where it is used, so that --help is quick
    from fastloaa.export import Prediction

FORMATS = ("parquet", "csv", "jsonl")
_ROWS = 10_000  # of a table that are in memory at once


def write_table(
    paths: Sequence[Path],
    out: Path,
    form: str,
    about: Mapping[str, Any],
    predict: Callable[[Sequence[Path]], Iterator["Prediction"]],
) -> int:
    """A row for each recording; the table appears at `out` when it is complete.

    Until then what is answered stands in `out`.partial, and a process that was killed is followed by one that answers
    only what is left.

    Args:
        paths: of the recordings; one that comes twice has one row.
        form: one of `FORMATS`.
        about: whatever the answers depend on, as JSON: what was begun with something else is not gone on with.
        predict: the answers of some of the paths, in order. What it cannot do it refuses when it is called.

    Returns:
        How many of the recordings could not be read.

    Raises:
        ArgumentError: `out` is a folder.
        FileError: what is left of an earlier process is of another model or other options, or damaged.
        LockedError: another process is writing this table.
        MissingPackageError: pyarrow, which parquet takes, is not installed.
        WriteError: the table cannot be written.
    """
    if out.is_dir():
        raise ArgumentError(f"{out}: is a folder; --out is the name of a file")
    write = {"parquet": _write_parquet, "csv": _write_csv, "jsonl": _write_json_lines}[form]
    if form == "parquet":
        _pyarrow()
    partial = out.with_name(f"{out.name}.partial")
    wanted = {str(path): path for path in paths}
    with locked(out, out.with_name(f"{out.name}.lock")):
        predict(())  # what is refused begins no table
        done = _resumed(partial, about)
        left = [path for name, path in wanted.items() if name not in done]
        count, began = len(wanted) - len(left), time.monotonic()
        if count:
            print(f"{out}: going on behind {count} of {len(wanted)} files", file=sys.stderr)
        try:
            with writing(partial), partial.open("a", encoding="utf-8") as file:
                for prediction in progress(predict(left), len(wanted), count, hidden=False):
                    print(as_json(prediction), file=file, flush=True)
                    count += 1
        except KeyboardInterrupt:
            print(f"{out}: stopped; the same command goes on behind {count} of {len(wanted)} files", file=sys.stderr)
            raise
        write(out, _rows(partial, wanted))
        broken = sum("error" in row for row in _rows(partial, wanted))
        partial.unlink()
    seconds = time.monotonic() - began
    print(f"{out}: {len(left)} files in {seconds:.1f} s, {len(left) / seconds:.1f} files/s", file=sys.stderr)
    return broken


def _resumed(partial: Path, about: Mapping[str, Any]) -> set[str]:
    """The files that are answered; a line that was being written when its process was killed goes."""
    with writing(partial), partial.open("a+b") as file:
        file.seek(0)
        whole = 0
        for line in file:
            whole += len(line) if line.endswith(b"\n") else 0
        file.truncate(whole)
        if not whole:
            file.write(json.dumps(about).encode() + b"\n")
    with partial.open(encoding="utf-8") as lines:
        begun = _json(partial, next(lines))
    if begun != json.loads(json.dumps(about)):
        differing = sorted(name for name in {*about, *begun} if about.get(name) != begun.get(name))
        raise FileError(
            f"{partial}: was begun with another {' and '.join(differing)}; delete it to begin again, or give another "
            "--out"
        )
    return {row["file"] for row in _rows(partial)}


def _rows(partial: Path, wanted: Container[str] | None = None) -> Iterator[dict[str, Any]]:
    """Its answers, of the wanted files alone."""
    with partial.open(encoding="utf-8") as lines:
        next(lines)
        for line in lines:
            row = _json(partial, line)
            if "file" not in row:
                raise FileError(f"{partial}: damaged; delete it to begin again")
            if wanted is None or row["file"] in wanted:
                yield row


def _json(partial: Path, line: str) -> dict[str, Any]:
    with suppress(ValueError):
        found = json.loads(line)
        if isinstance(found, dict):
            return found
    raise FileError(f"{partial}: damaged; delete it to begin again")


def _write_json_lines(out: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with replacing(out) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def _write_csv(out: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """A line for each class that is named, and one without for a file of which none is."""
    with replacing(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        print("file,label,probability,seconds,heard,error", file=file)
        for row in rows:
            name, error = encodable(row["file"]), encodable(row.get("error", ""))
            for named in row.get("top") or [{"label": "", "probability": ""}]:
                times = row.get("seconds", ""), row.get("heard", "")
                print(csv_line(name, named["label"], named["probability"], *times, error), file=file)


def _write_parquet(out: Path, rows: Iterator[Mapping[str, Any]]) -> None:
    pyarrow = _pyarrow()
    schema = pyarrow.schema(
        {
            "file": pyarrow.string(),
            "labels": pyarrow.list_(pyarrow.string()),
            "probabilities": pyarrow.list_(pyarrow.float32()),
            "seconds": pyarrow.float64(),
            "heard": pyarrow.float64(),
            "error": pyarrow.string(),
        }
    )
    with replacing(out) as temporary, pyarrow.parquet.ParquetWriter(temporary, schema) as writer:
        while group := list(islice(rows, _ROWS)):
            columns = {
                "file": [encodable(row["file"]) for row in group],
                "labels": [[named["label"] for named in row.get("top", ())] for row in group],
                "probabilities": [[named["probability"] for named in row.get("top", ())] for row in group],
                "seconds": [row.get("seconds") for row in group],
                "heard": [row.get("heard") for row in group],
                "error": [None if "error" not in row else encodable(row["error"]) for row in group],
            }
            writer.write_table(pyarrow.table(columns, schema))


def _pyarrow() -> Any:
    from fastloaa.extras import MissingPackageError

    try:
        importlib.import_module("pyarrow.parquet")
        return importlib.import_module("pyarrow")
    except ImportError as error:
        raise MissingPackageError(
            f"pyarrow is not installed or does not load ({error}); pip install 'fastloaa[parquet]', or give --out a "
            "name that ends in .csv or .jsonl"
        ) from error
