"""Two processes and one folder."""

import os
import re
import signal
import socket
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from fastloaa.cli import app
from fastloaa.data import synthesise_words
from fastloaa.errors import FastloaaError
from fastloaa.files import WriteError
from fastloaa.files.locks import LockedError, locked
from fastloaa.training import Recipe, train
from fastloaa.training.rundir import RunDirectory
from fastloaa.training.sweep import sweep
from helpers.lock_holder import PROCESSES, holder
from helpers.tone_set import small_recipe, write_tones

QUIET = Console(quiet=True)


def test_the_holder_is_named_until_it_leaves(tmp_path: Path) -> None:
    lock = tmp_path / "new" / ".lock"
    now = datetime.now().astimezone()
    with holder(lock) as pid:
        with pytest.raises(LockedError) as caught, locked("runs/r", lock):
            pass
        text = str(caught.value)
        assert lock.exists()
    found = re.fullmatch(
        rf"runs/r: in use by process {pid} on {re.escape(socket.gethostname())} since (\S+ \S+) \S+; "
        r"wait until it has finished, or give another place",
        text,
    )
    assert found
    since = datetime.fromisoformat(found[1]).replace(tzinfo=now.tzinfo)
    assert abs((since - now).total_seconds()) < 60
    assert isinstance(caught.value, FastloaaError)
    assert not lock.exists()
    with locked("runs/r", lock):
        pass
    assert list(lock.parent.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_killed_holder_holds_nothing(number: signal.Signals, tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with holder(lock) as pid:
        os.kill(pid, number)
    assert lock.exists()
    with locked("it", lock):
        assert f'"pid": {os.getpid()},' in lock.read_text()
    assert not lock.exists()


def test_forked_workers_do_not_keep_it(tmp_path: Path) -> None:
    """Those of a DataLoader outlive a killed process by some seconds."""
    lock = tmp_path / ".lock"
    here, there = PROCESSES.Pipe()
    with locked("it", lock):
        worker = PROCESSES.Process(target=there.recv)
        worker.start()
    with locked("it", lock):
        pass
    here.send(True)
    worker.join()


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '{"pid": 1}', "\0\0", "not JSON", "4711\nhost\n"])
def test_a_holder_that_has_not_said_who_it_is(content: str, tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with holder(lock):
        lock.write_text(content)
        with pytest.raises(LockedError, match=r"^it: in use by another process; wait"), locked("it", lock):
            pass


def test_one_process_twice(tmp_path: Path) -> None:
    with (
        locked("it", tmp_path / ".lock"),
        pytest.raises(LockedError, match=rf"by process {os.getpid()} "),
        locked("it", tmp_path / ".lock"),
    ):
        pass


def test_an_error_within_frees_it(tmp_path: Path) -> None:
    for error in (ValueError, KeyboardInterrupt, SystemExit):
        with pytest.raises(error), locked("it", tmp_path / ".lock"):
            raise error
        assert list(tmp_path.iterdir()) == []


def test_a_place_that_takes_no_lock(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for lock in (tmp_path / "file" / "lock", tmp_path / "folder", tmp_path / ("x" * 300)):
        with pytest.raises(WriteError, match=rf"^{lock}: cannot be written: "), locked("it", lock):
            pass


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return small_recipe(write_tones(tmp_path_factory.mktemp("tones") / "data", clips=5), epochs=1)


WRITERS: dict[str, tuple[str, Callable[[Path, Recipe], object]]] = {
    "train": ("it/.lock", lambda path, recipe: train(recipe, path, console=QUIET)),
    "train anew": ("it/.lock", lambda path, recipe: train(recipe, path, overwrite=True, console=QUIET)),
    "sweep": ("it/.lock", lambda path, recipe: sweep({"a": recipe}, path, console=QUIET)),
    "words": (".it.lock", lambda path, recipe: synthesise_words(path, ("yes",), 5)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_whoever_comes_second_is_refused_and_changes_nothing(name: str, recipe: Recipe, tmp_path: Path) -> None:
    place, write = WRITERS[name]
    path = tmp_path / "it"
    with holder(tmp_path / place) as pid:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(LockedError, match=rf"^{path}: in use by process {pid} on "):
            write(path, recipe)
        assert sorted(tmp_path.rglob("*")) == before
    write(path, recipe)  # and then it is free
    assert not list(tmp_path.rglob("*.lock"))


def test_the_command_line_says_it_in_one_line(recipe: Recipe, tmp_path: Path) -> None:
    recipe.save(tmp_path / "recipe.yaml")
    with holder(tmp_path / "run" / ".lock") as pid:
        arguments = ["train", "--recipe", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run")]
        result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {tmp_path / 'run'}: in use by process {pid} on ")
    assert result.stderr.count("\n") == 1


def test_a_sweep_goes_on_without_a_run_that_another_process_is_at(recipe: Recipe, tmp_path: Path) -> None:
    with holder(tmp_path / "out" / "a" / "seed0" / ".lock") as pid:
        table = sweep({"a": recipe}, tmp_path / "out", seeds=(0, 1), console=QUIET)
    assert [outcome.seed for outcome in table.outcomes] == [1]
    assert f"in use by process {pid} on " in table.failures["a, seed 0"]


def test_no_lock_is_put_into_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(FastloaaError, match="is no run of fastloaa"), RunDirectory(tmp_path).locked():
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
