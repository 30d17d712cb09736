"""metrics.jsonl across interruptions."""

import json
import os
from pathlib import Path

import pytest

from fastloaa.training.metrics import MetricsFile


def test_lines_of_epochs_that_will_be_repeated_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = MetricsFile(path, epochs=0)
    for epoch in (1, 2, 3):
        first.append({"epoch": epoch, "loss": 0.5})
    with path.open("a") as file:
        file.write('{"epoch": 4, "lo')  # killed while writing
    again = MetricsFile(path, epochs=2)
    again.append({"epoch": 3, "loss": 0.25})
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[2]["loss"] == 0.25


def test_a_new_run_starts_empty(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 1}\n')
    MetricsFile(path, epochs=0)
    assert path.read_text() == ""


def test_a_line_is_on_the_disk_before_anything_else_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint that a power cut left knows of no epoch whose line it took."""
    flushed: list[tuple[int, int]] = []
    flush = os.fsync

    def note(descriptor: int) -> None:
        flush(descriptor)
        state = os.fstat(descriptor)
        flushed.append((state.st_ino, state.st_size))

    metrics = MetricsFile(tmp_path / "metrics.jsonl", epochs=0)
    monkeypatch.setattr(os, "fsync", note)
    metrics.append({"epoch": 1})
    state = metrics.path.stat()
    assert (state.st_ino, state.st_size) in flushed
