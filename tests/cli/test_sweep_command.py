"""fastloaa sweep, end to end on tones."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

import fastloaa.training.sweep
from fastloaa.cli import app
from fastloaa.cli.sweep import numbers
from fastloaa.training import OptionError
from helpers.tone_set import small_recipe, write_tones


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["sweep", *map(str, arguments)])


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two recipes for other data than what is given."""
    time, probe = tmp_path / "time.yaml", tmp_path / "probe.yaml"
    small_recipe(Path("elsewhere"), epochs=3).save(time)
    small_recipe(Path("elsewhere"), epochs=3, method="probe").save(probe)
    return [time, probe]


def test_a_table_of_two_recipes_and_seeds(files: list[Path], tmp_path: Path) -> None:
    data, out = write_tones(tmp_path / "tones"), tmp_path / "out"
    result = run(*files, "--data", data, "--out", out, "--seeds", "0-1", "--set", "epochs=1")
    assert result.exit_code == 0, result.output
    assert (out / "table.md").read_text() in result.stdout
    found = json.loads((out / "table.json").read_text())
    assert [(run["name"], run["seed"]) for run in found["runs"]] == [
        ("time", 0),
        ("probe", 0),
        ("time", 1),
        ("probe", 1),
    ]
    assert {run["chosen_epoch"] for run in found["runs"]} == {1}
    assert f"{data}: test clips; mean ± standard deviation over seeds 0, 1. 4 of 4 runs have finished" in result.stdout


def test_a_failure_is_reported_and_is_the_exit_status(files: list[Path], tmp_path: Path) -> None:
    result = run(files[0], "--data", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert f"Failed: time, seed 0: {tmp_path / 'nowhere'}: no such folder" in result.stdout


def test_interrupted_by_the_user(files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fastloaa.training.sweep, "sweep", interrupted)
    result = run(files[0], "--data", "x", "--out", tmp_path / "out")
    assert result.exit_code == 130
    assert result.stdout == f"stopped; the same command goes on in {tmp_path / 'out'}\n"


def test_refusals(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    twin = tmp_path / "more" / "time.yaml"
    twin.write_text("lr: 1e-3\n")
    common = ("--data", "x", "--out", tmp_path / "out")
    for arguments, message in (
        ((files[0], twin, *common), "two recipes are called time; rename one of the files"),
        (
            ("esc-50-prob", *common),
            "esc-50-prob: no recipe of that name and no YAML file; did you mean 'esc-50-probe'?",
        ),
        ((files[0], *common, "--seeds", "one"), "expected numbers such as 1-5 or 0,1,2; got 'one'"),
        (
            (files[0], *common, "--set", "seed=3"),
            "--set seed would have no effect, a sweep's are those of --seeds; give them there",
        ),
        (
            (files[0], *common, "--set", "test_fold=3", "--folds", "1-2"),
            "--set test_fold would have no effect, a sweep's are those of --folds; give them there",
        ),
        ((files[0], *common, "--set", "epoch=1"), "unknown recipe option 'epoch'; did you mean 'epochs'?"),
    ):
        result = run(*arguments)
        assert (result.exit_code, result.stderr) == (2, f"error: {message}\n")


def test_numbers() -> None:
    assert numbers("0-2") == numbers("0,1,2") == numbers("0 1, 2") == [0, 1, 2]
    assert numbers("7") == [7]
    assert numbers("1-2,5") == [1, 2, 5]
    for text in ("-1", "1-", "a", "1..2"):
        with pytest.raises(OptionError, match="expected numbers such as"):
            numbers(text)
