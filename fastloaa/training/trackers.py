"""Where the metrics of an epoch go besides metrics.jsonl: TensorBoard, a CSV file."""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from fastloaa.files import replacing, writing
from fastloaa.methods import OptionError
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

    Args:
        folder: for the event files.
        step: of a run that goes on; what an earlier process wrote of later ones is dropped.

    Raises:
        OptionError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            if error.name != "tensorboard":
                raise
            raise OptionError('tracker "tensorboard" needs a package: pip install "fastloaa[tensorboard]"') from None
        self.folder = folder
        with writing(folder):
            self.writer = SummaryWriter(str(folder), purge_step=step + 1)

    def epoch(self, rows: Sequence[Mapping[str, Any]]) -> None:
        row = rows[-1]
        with writing(self.folder):
            for name, value in row.items():
                if name != "step" and value is not None:
                    self.writer.add_scalar(name, value, row["step"])
            self.writer.flush()


def open_trackers(names: Iterable[TrackerName], run: RunDirectory, step: int) -> list[Tracker]:
    """The trackers of those names, for a run that stands at `step`.

    Raises:
        OptionError: TensorBoard is not installed.
    """
    make: dict[TrackerName, Callable[[], Tracker]] = {
        "csv": lambda: CSVTracker(run.csv),
        "tensorboard": lambda: TensorBoardTracker(run.tensorboard, step),
    }
    return [make[name]() for name in dict.fromkeys(names)]
