"""Who may use a run directory."""

from pathlib import Path

import pytest

from fastloaa.training import Recipe, RunError
from fastloaa.training.rundir import RunDirectory
from helpers.checkpoints import CHECKPOINT

RECIPE = Recipe(data="x")


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "runs" / "one")


def begin(run: RunDirectory) -> None:
    """As a run leaves it that was killed in its second epoch."""
    run.claim(RECIPE)
    CHECKPOINT.save(run.checkpoint)
    run.metrics.write_text('{"epoch": 1}\n')


def test_new_and_empty_folders(run: RunDirectory, tmp_path: Path) -> None:
    assert run.begun(RECIPE) is None
    assert not run.path.exists()
    run.claim(RECIPE)
    assert Recipe.load(run.recipe) == RECIPE
    (tmp_path / "empty").mkdir()
    RunDirectory(tmp_path / "empty").claim(RECIPE)
    assert RunDirectory(tmp_path / "empty").begun(RECIPE) is None


def test_an_interrupted_run_goes_on(run: RunDirectory) -> None:
    begin(run)
    half_written = run.path / ".checkpoint.safetensors-abc"
    half_written.mkdir()
    (half_written / "checkpoint.safetensors").touch()
    run.claim(RECIPE)
    checkpoint = run.begun(RECIPE)
    assert checkpoint is not None
    assert checkpoint.position == CHECKPOINT.position
    assert not half_written.exists()


def test_another_recipe_is_refused_by_its_first_difference(run: RunDirectory) -> None:
    begin(run)
    for ask in (run.begun, run.claim):
        with pytest.raises(RunError) as caught:
            ask(RECIPE.replace(lr=1e-3, epochs=3))
        assert f"{run.path}: holds an unfinished run with epochs 25, now 3; " in str(caught.value)
    assert Recipe.load(run.recipe) == RECIPE


def test_before_the_first_checkpoint_the_recipe_may_change(run: RunDirectory) -> None:
    run.claim(RECIPE)
    assert run.begun(RECIPE.replace(epochs=3)) is None
    run.claim(RECIPE.replace(epochs=3))
    assert Recipe.load(run.recipe).epochs == 3


def test_a_finished_run_is_kept(run: RunDirectory) -> None:
    begin(run)
    run.result.write_text("{}")
    for ask in (run.begun, run.claim):
        with pytest.raises(RunError, match="holds a finished run; give another folder, or --overwrite"):
            ask(RECIPE)


def test_overwriting_removes_the_run_and_nothing_else(run: RunDirectory) -> None:
    begin(run)
    for name in ("result.json", "adapter.safetensors", "model.safetensors", "notes.txt"):
        (run.path / name).touch()
    run.claim(RECIPE.replace(epochs=3), overwrite=True)
    assert {file.name for file in run.path.iterdir()} == {"recipe.yaml", "notes.txt"}


def test_other_folders_and_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    for path in (tmp_path, tmp_path / "thesis.tex"):
        for overwrite in (False, True):
            with pytest.raises(RunError, match="exists and is no run of fastloaa"):
                RunDirectory(path).claim(RECIPE, overwrite)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]
