"""A command that is told to stop leaves nothing half done, and says how to go on."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fastloaa.cli import app
from fastloaa.files import storage as files
from fastloaa.training import Recipe
from fastloaa.training.loop import Trainer
from helpers.tone_set import small_recipe, write_tones

STOPS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.fixture(autouse=True)
def as_in_a_terminal() -> Iterator[None]:
    """Python's own handlers: what starts the tests in the background (nohup, &) makes them ignore some signals."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tones")
    small_recipe(write_tones(folder / "data", clips=5), epochs=2).save(folder / "recipe.yaml")
    return folder / "recipe.yaml"


def in_a_step(monkeypatch: pytest.MonkeyPatch, stop: Callable[[], None]) -> None:
    step = Trainer._step

    def interrupted(self: Trainer, *batch: object) -> float:
        if self.position.epoch == 1:
            stop()
        return step(self, *batch)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "_step", interrupted)


def in_the_middle_of_a_file(monkeypatch: pytest.MonkeyPatch, stop: Callable[[], None]) -> None:
    def half(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        stop()

    monkeypatch.setattr(files, "save_file", half)


@pytest.mark.parametrize("where", [in_a_step, in_the_middle_of_a_file])
@pytest.mark.parametrize("number", STOPS)
def test_training_stops_and_goes_on(
    number: signal.Signals,
    where: Callable[[pytest.MonkeyPatch, Callable[[], None]], None],
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"
    arguments = ["train", "--recipe", str(recipe), "--out", str(run)]
    before = signal.getsignal(number)
    with monkeypatch.context() as patched:
        where(patched, lambda: signal.raise_signal(number))
        result = CliRunner().invoke(app, arguments)
    assert result.exit_code == STOPS[number]
    assert result.stdout.endswith(f"stopped; the same command goes on from the last checkpoint in {run}\n")
    assert result.stderr == ""
    assert signal.getsignal(number) is before
    assert {path.name for path in run.iterdir()} <= {"recipe.yaml", "metrics.jsonl", "checkpoint.safetensors"}
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert ("going on after epoch 1" in result.stdout) == (where is in_a_step)
    assert Recipe.load(run / "recipe.yaml") == Recipe.load(recipe)


def test_what_is_ignored_stays_ignored(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by nohup: a training that outlives the terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        in_a_step(monkeypatch, lambda: signal.raise_signal(signal.SIGHUP))
        result = CliRunner().invoke(app, ["train", "--recipe", str(recipe), "--out", str(tmp_path / "run")])
    finally:
        signal.signal(signal.SIGHUP, before)
    assert result.exit_code == 0
    assert (tmp_path / "run" / "result.json").exists()
