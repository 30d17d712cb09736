"""Where the metrics of an epoch go besides metrics.jsonl: TensorBoard, a CSV file."""

import csv
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from fastloaa.extras import needs
from fastloaa.files import replacing, writing
from fastloaa.training.recipe import Tracker as TrackerName
from fastloaa.training.rundir import RunDirectory


class Tracker(Protocol):
    """Something that follows a run."""

    def epoch(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """An epoch is complete; `rows` are those of all epochs so far, it comes last."""
        ...


class CSVTracker:
    """`metrics.csv`: a row per epoch, the columns of metrics.jsonl."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def epoch(self, rows: Sequence[Mapping[str, Any]]) -> None:
        with replacing(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[-1])
            writer.writeheader()
            writer.writerows(rows)


class TensorBoardTracker:
    """Scalars for TensorBoard, by step.

    Written an epoch at a time, by the caller's thread: SummaryWriter has one of its own, which ends with a traceback
    where the disk is full.

    Args:
        folder: for the event files.
        step: of a run that goes on; what an earlier process wrote of later ones is dropped.

    Raises:
        MissingPackageError: TensorBoard is not installed.
        WriteError: an event file cannot be written.
    """

    def __init__(self, folder: Path, step: int) -> None:
        needs("tensorboard")
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter
        from torch.utils.tensorboard.summary import scalar

        self._event, self._record_writer, self._scalar = Event, RecordWriter, scalar
        now = time.time()  # TensorBoard reads the files of a folder in the order of their names
        self.path = folder / f"events.out.tfevents.{now:.6f}.{socket.gethostname()}.{os.getpid()}"
        with writing(self.path):
            folder.mkdir(parents=True, exist_ok=True)
        self._append(
            Event(file_version="brain.Event:2", wall_time=now),
            Event(step=step + 1, session_log=SessionLog(status=SessionLog.START), wall_time=now),
        )

    def epoch(self, rows: Sequence[Mapping[str, Any]]) -> None:
        step, now = rows[-1]["step"], time.time()
        values = {name: value for name, value in rows[-1].items() if name != "step" and value is not None}
        summaries = [self._scalar(name, value) for name, value in values.items()]
        self._append(*(self._event(step=step, wall_time=now, summary=summary) for summary in summaries))

    def _append(self, *events: Any) -> None:
        with writing(self.path), self.path.open("ab") as file:
            writer = self._record_writer(file)
            for event in events:
                writer.write(event.SerializeToString())


def check_trackers(names: Iterable[TrackerName]) -> None:
    """Raise MissingPackageError where one of the trackers could not be opened once the data and model are there."""
    if "tensorboard" in names:
        needs("tensorboard")


def open_trackers(names: Iterable[TrackerName], run: RunDirectory, step: int) -> list[Tracker]:
    """The trackers of those names, for a run that stands at `step`.

    Raises:
        MissingPackageError: TensorBoard is not installed.
    """
    make: dict[TrackerName, Callable[[], Tracker]] = {
        "csv": lambda: CSVTracker(run.csv),
        "tensorboard": lambda: TensorBoardTracker(run.tensorboard, step),
    }
    return [make[name]() for name in dict.fromkeys(names)]
