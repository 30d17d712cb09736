"""Sweeps: which runs they make, that they go on where they stopped, and that one failure does not stop the others."""

import json
import shutil
import statistics
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

import fastloaa.training.sweep
from fastloaa.files import LockedError
from fastloaa.training import OptionError, Recipe, train
from fastloaa.training.metrics import read_metrics
from fastloaa.training.sweep import sweep
from helpers.miniatures import esc50
from helpers.tone_set import small_recipe

QUIET = Console(quiet=True)


@pytest.fixture
def recipes(tmp_path: Path) -> dict[str, Recipe]:
    base = small_recipe(esc50(tmp_path / "esc"), epochs=1)
    return {
        "time": base.replace(paper={"figures": {"mAP": "87.1"}}),
        "probe": base.replace(method="probe", method_options={}),
    }


def accuracy(folder: Path) -> float:
    return json.loads((folder / "result.json").read_text())["test"]["accuracy"]


def test_every_run_in_its_folder_and_a_table_of_them_all(recipes: dict[str, Recipe], tmp_path: Path) -> None:
    out, said = tmp_path / "out", StringIO()
    table = sweep(recipes, out, seeds=(0, 3), folds=(1, 4), console=Console(file=said))
    for name, recipe in recipes.items():
        means = []
        for seed in (0, 3):
            runs = [out / name / f"fold{fold}-seed{seed}" for fold in (1, 4)]
            means.append(statistics.fmean(accuracy(run) for run in runs))
            for run, fold in zip(runs, (1, 4), strict=True):
                assert Recipe.load(run / "recipe.yaml") == recipe.replace(test_fold=fold, seed=seed)
        spread = table.spread(name, "accuracy")
        assert spread is not None
        assert (spread.mean, spread.std) == pytest.approx((statistics.fmean(means), statistics.stdev(means)))
    assert not table.failures
    assert (out / "table.md").read_text() == table.markdown() + "\n"
    assert "mAP 87.1" in table.markdown()
    headings = [line.split(" left")[0] for line in said.getvalue().splitlines() if line.startswith("run ")]
    assert headings[0] == "run 1 of 8: time, fold 1, seed 0"
    assert headings[7].startswith("run 8 of 8: probe, fold 4, seed 3, 0:00:")


def test_it_goes_on_where_it_stopped(
    recipes: dict[str, Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []

    def stop_at_third(recipe: Recipe, out: Path, **options: object) -> object:
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(f"{out.parent.name}/{out.name}")
        return train(recipe, out, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(fastloaa.training.sweep, "train", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        sweep(recipes, tmp_path / "out", seeds=(0, 1), console=QUIET)
    assert trained == ["time/seed0", "probe/seed0"]  # the first seed of all recipes comes first
    assert "2 of 4 runs have finished" in (tmp_path / "out" / "table.md").read_text()

    def note(recipe: Recipe, out: Path, **options: object) -> object:
        trained.append(f"{out.parent.name}/{out.name}")
        return train(recipe, out, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(fastloaa.training.sweep, "train", note)
    table = sweep(recipes, tmp_path / "out", seeds=(0, 1), console=QUIET)
    assert trained[2:] == ["time/seed1", "probe/seed1"]
    again = sweep(recipes, tmp_path / "out", seeds=(0, 1), console=QUIET)
    assert len(trained) == 4
    assert again.to_dict() == table.to_dict()


def test_one_failure_does_not_stop_the_others(
    recipes: dict[str, Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes["probe"] = recipes["probe"].replace(weights=str(tmp_path / "gone.safetensors"))

    def run(recipe: Recipe, out: Path, **options: object) -> object:
        if recipe.seed == 1:
            raise RuntimeError("out of\nthis world") if recipe.method == "probe" else MemoryError("3 GB")
        return train(recipe, out, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(fastloaa.training.sweep, "train", run)
    said = StringIO()
    table = sweep(
        {"probe": recipes["probe"], "time": recipes["time"]}, tmp_path / "out", seeds=(0, 1), console=Console(file=said)
    )
    assert [(outcome.name, outcome.seed) for outcome in table.outcomes] == [("time", 0)]
    assert table.failures.keys() == {"probe, seed 0", "probe, seed 1", "time, seed 1"}
    assert table.failures["time, seed 1"].startswith("out of memory: 3 GB; a smaller batch size")
    assert "gone.safetensors: no such file" in table.failures["probe, seed 0"]
    assert table.failures["probe, seed 1"] == "RuntimeError: out of this world"
    assert said.getvalue().count("Traceback") == 1  # of the bug
    assert "Failed: probe, seed 1: RuntimeError: out of this world" in (tmp_path / "out" / "table.md").read_text()


def test_of_several_processes_one_that_fails_ends_it(
    recipes: dict[str, Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one alone finds that a run is locked: with its next run it would meet the others in this one."""
    begun: list[Path] = []

    def locked(_: Recipe, out: Path, **__: object) -> None:
        begun.append(out)
        raise LockedError("in use")

    two = SimpleNamespace(is_main_process=True, num_processes=2)
    monkeypatch.setattr(fastloaa.training.sweep, "process_state", lambda: two)
    monkeypatch.setattr(fastloaa.training.sweep, "train", locked)
    with pytest.raises(LockedError, match="in use"):
        sweep(recipes, tmp_path / "out", seeds=(0, 1), console=QUIET)
    assert begun == [tmp_path / "out" / "time" / "seed0"]


def test_a_changed_recipe_is_not_taken_for_the_finished_one(recipes: dict[str, Recipe], tmp_path: Path) -> None:
    only = {"probe": recipes["probe"]}
    sweep(only, tmp_path / "out", console=QUIET)
    table = sweep({"probe": only["probe"].replace(lr=1e-2)}, tmp_path / "out", console=QUIET)
    assert not table.outcomes
    assert table.failures["probe, seed 0"] == (
        f"{tmp_path / 'out' / 'probe' / 'seed0'}: was trained with lr 0.005, now 0.01; "
        f"give another --out, or delete the folder to train it anew"
    )


def test_runs_on_other_clips_do_not_share_a_table(recipes: dict[str, Recipe], tmp_path: Path) -> None:
    """A clip that has gone since; all of the data gone change nothing."""
    only, out, data = {"probe": recipes["probe"]}, tmp_path / "out", tmp_path / "esc"
    finished = sweep(only, out, folds=(1, 2), console=QUIET)
    lines = (data / "meta" / "esc50.csv").read_text().splitlines()
    (data / "meta" / "esc50.csv").write_text("\n".join(lines[:-1]) + "\n")
    table = sweep(only, out, folds=(1, 2, 3), console=QUIET)
    assert [outcome.fold for outcome in table.outcomes] == [3]
    assert table.failures["probe, fold 1, seed 0"] == (
        f"{out / 'probe' / 'fold1-seed0'}: was trained with other clips than {data} has now; "
        f"bring those back, give another --out, or delete the folder to train it anew"
    )
    shutil.rmtree(data)
    assert sweep(only, out, folds=(1, 2), console=QUIET).outcomes == finished.outcomes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": ()}, "expected one or more distinct seeds, got []"),
        ({"seeds": (1, 1)}, "expected one or more distinct seeds, got [1, 1]"),
        ({"folds": ()}, "expected one or more distinct folds, got []"),
        ({"folds": (-1,)}, "test_fold is at least 0, got -1"),
        ({"recipes": {}}, "expected one or more distinct recipes, got []"),
        (
            {"recipes": {"a/b": Recipe(data="x")}},
            "'a/b' cannot name a recipe's folder; expected a name without slashes",
        ),
    ],
)
def test_what_cannot_be_run(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError) as caught:
        sweep(**({"recipes": {"a": Recipe(data="x")}, "out": tmp_path / "out", "console": QUIET} | changes))  # type: ignore[arg-type]
    assert str(caught.value) == message
    assert not (tmp_path / "out").exists()


def test_what_the_test_clips_give_after_every_epoch(recipes: dict[str, Recipe], tmp_path: Path) -> None:
    """It is noted and reported, and changes nothing else."""
    recipe = recipes["time"].replace(epochs=3)
    plain = sweep({"time": recipe}, tmp_path / "plain", folds=(1, 4), console=QUIET)
    noted = sweep({"time": recipe.replace(test_every_epoch=True)}, tmp_path / "noted", folds=(1, 4), console=QUIET)
    assert noted.spread("time", "accuracy") == plain.spread("time", "accuracy")
    by_epoch = []
    for fold in (1, 4):
        run = tmp_path / "noted" / "time" / f"fold{fold}-seed0"
        by_epoch.append([row["test_accuracy"] for row in read_metrics(run / "metrics.jsonl")])
        assert by_epoch[-1][-1] == accuracy(run)  # the last epoch is the one that counts
        assert len(by_epoch[-1]) == 3
    assert noted.best_epochs("time", "accuracy") == {0: max(map(statistics.fmean, zip(*by_epoch, strict=True)))}
