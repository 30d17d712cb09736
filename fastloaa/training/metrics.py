"""metrics.jsonl: one JSON object per epoch, one per line."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastloaa.files import replacing, understanding, writing


def read_metrics(path: Path) -> list[Mapping[str, Any]]:
    """The rows of a run's metrics.jsonl.

    Raises:
        FileError: a line that is not a row.
    """
    with understanding(path, "metrics.jsonl of a run"):
        return [dict(json.loads(line)) for line in path.read_text().splitlines()]


class MetricsFile:
    """Appends a line per epoch. Opening it drops the lines of epochs that the checkpoint does not know of.

    Args:
        path: of the file.
        epochs: how many of its lines to keep.

    Attributes:
        rows: what the file holds.
    """

    def __init__(self, path: Path, epochs: int) -> None:
        self.path = path
        lines = path.read_text().splitlines(keepends=True)[:epochs] if path.exists() else []
        with replacing(path) as temporary:
            temporary.write_text("".join(lines))
        self.rows = read_metrics(path)

    def append(self, row: Mapping[str, Any]) -> None:
        with writing(self.path), self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())  # before the checkpoint, which says that it is there, can be on the disk
        self.rows.append(row)
