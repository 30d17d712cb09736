"""What trackers write, read back by others' means, also across interruptions."""

import csv
import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from test_resume import StoppedError

from fastloaa.extras import MissingPackageError
from fastloaa.files import WriteError
from fastloaa.training import train
from fastloaa.training.loop import Trainer
from fastloaa.training.rundir import RunDirectory
from fastloaa.training.trackers import open_trackers
from helpers.full_disk import files_of_at_most
from helpers.tone_set import small_recipe, write_tones

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with both trackers that was stopped after its second epoch's metrics, before their checkpoint."""
    folder = tmp_path_factory.mktemp("trackers")
    write_tones(folder / "data")
    recipe = small_recipe(folder / "data", epochs=3, trackers=["csv", "tensorboard"])
    save = Trainer.save

    def stopping(self: Trainer) -> None:
        if self.position.epoch == 2:
            raise StoppedError
        save(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "save", stopping)
        with pytest.raises(StoppedError):
            train(recipe, folder / "run", console=QUIET)
    train(recipe, folder / "run", console=QUIET)
    return folder / "run"


@pytest.fixture
def rows(interrupted: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (interrupted / "metrics.jsonl").read_text().splitlines()]


def test_csv_holds_the_rows(interrupted: Path, rows: list[dict[str, Any]]) -> None:
    with (interrupted / "metrics.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [{name: float(value) for name, value in row.items()} for row in found] == rows


def test_tensorboard_holds_the_rows(interrupted: Path, rows: list[dict[str, Any]]) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = event_accumulator.EventAccumulator(str(interrupted / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == rows[0].keys() - {"step"}
    for name in events.Tags()["scalars"]:
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert [step for step, _ in found] == [row["step"] for row in rows]
        assert [value for _, value in found] == pytest.approx([row[name] for row in rows], rel=1e-6)


def test_none_is_a_gap(tmp_path: Path) -> None:
    write_tones(tmp_path / "data")
    recipe = small_recipe(tmp_path / "data", epochs=1, validation=0, trackers=["csv"])
    train(recipe, tmp_path / "run", console=QUIET)
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["validation_loss"] == ""


def test_starting_anew_removes_what_trackers_wrote(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.claim(small_recipe(tmp_path))
    run.tensorboard.mkdir()
    for name in ("metrics.csv", "curves.png", "confusion.png", "tensorboard/events.out.tfevents.1.host.2.0"):
        (tmp_path / name).touch()
    run.claim(small_recipe(tmp_path), overwrite=True)
    assert {path.name for path in tmp_path.rglob("*")} == {"recipe.yaml", "tensorboard"}


def test_tensorboard_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingPackageError, match=r"^tensorboard is not .*'fastloaa\[tensorboard\]'$"):
        open_trackers(["tensorboard"], RunDirectory(tmp_path), 0)
    with pytest.raises(MissingPackageError, match="tensorboard is not"):  # before anything is looked at
        train(small_recipe(tmp_path / "no data", trackers=["tensorboard"]), tmp_path / "run", console=QUIET)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("most", [0, 200])
def test_a_full_disk_is_one_error(most: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of what does not fit, raised where it is written: nothing else is printed, now or later."""
    row = {"step": 1, "train_loss": 0.5} | {f"a metric with a long name, number {n}": 0.5 for n in range(20)}
    threads = threading.active_count()
    expected = r"tensorboard/events\.out\S+: cannot be written: File too large"
    with files_of_at_most(most), pytest.raises(WriteError, match=expected):
        open_trackers(["tensorboard"], RunDirectory(tmp_path), 0)[0].epoch([row])
    assert threading.active_count() == threads
    assert capfd.readouterr() == ("", "")


def test_what_was_written_before_the_disk_was_full_can_be_read(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (tracker,) = open_trackers(["tensorboard"], RunDirectory(tmp_path), 0)
    tracker.epoch([{"step": 1, "loss": 0.5}])
    (path,) = (tmp_path / "tensorboard").iterdir()
    with files_of_at_most(path.stat().st_size + 5), pytest.raises(WriteError):
        tracker.epoch([{"step": 2, "loss": 0.25}])
    (tracker,) = open_trackers(["tensorboard"], RunDirectory(tmp_path), 1)  # the run goes on
    tracker.epoch([{"step": 2, "loss": 0.125}])
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 0.5), (2, 0.125)]
