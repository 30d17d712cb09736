"""The table of a sweep, against means and deviations worked out by hand."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from fastloaa.training import Recipe
from fastloaa.training.paper import PaperRow
from fastloaa.training.sweep_table import Outcome, Spread, SweepTable, Trial, in_words

ACCURACY = {("a", 1, 0): 0.5, ("a", 2, 0): 0.7, ("a", 1, 1): 0.8, ("a", 2, 1): 0.6, ("b", 1, 0): 0.25}


def table() -> SweepTable:
    """Recipe a has finished on two folds with two seeds; of recipe b one run has failed and two have not begun."""
    trials = [
        Trial(name, fold, seed, Recipe(data="sounds"), Path(name))
        for seed in (0, 1)
        for fold in (1, 2)
        for name in ("a", "b")
    ]
    outcomes = [
        Outcome(name, fold, seed, 1234, accuracy, accuracy / 2, 60.0, 25, "last epoch")
        for (name, fold, seed), accuracy in ACCURACY.items()
    ]
    papers = {"a": PaperRow(rows=("Table 2: A", "Table 3: A"), figures={"mAP": "70.0"}), "b": PaperRow()}
    return SweepTable(papers, trials, outcomes, {"b, fold 2, seed 0": "no such file"})


def test_mean_over_folds_then_mean_and_deviation_over_seeds() -> None:
    means = table().seed_means("a", "accuracy")
    assert means.keys() == {0, 1}
    assert math.isclose(means[0], 0.6)
    assert math.isclose(means[1], 0.7)
    spread = table().spread("a", "accuracy")
    assert spread is not None
    assert spread.seeds == 2
    assert math.isclose(spread.mean, 0.65)
    assert math.isclose(spread.std or 0, 0.1 / math.sqrt(2))  # of 0.6 and 0.7, with n - 1


def test_the_epoch_that_is_best_for_all_folds_together() -> None:
    """Each fold by itself is best after another epoch; the table says who chose."""
    noted = table()
    recipe = Recipe(data="sounds", test_every_epoch=True)
    by_epoch = {1: [0.1, 0.8, 0.5], 2: [0.9, 0.4, 0.6]}  # means 0.5, 0.6, 0.55
    outcomes = [
        replace(outcome, by_epoch={"accuracy": by_epoch[outcome.fold or 0], "mAP": [0.25, None, None]})
        for outcome in noted.outcomes
    ]
    noted = SweepTable(noted.papers, [replace(trial, recipe=recipe) for trial in noted.trials], outcomes, {})
    assert noted.best_epochs("a", "accuracy") == {0: pytest.approx(0.6), 1: pytest.approx(0.6)}
    assert noted.best_epochs("a", "mAP") == {}  # not known after every epoch
    assert noted.best_epochs("b", "accuracy") == {}  # not of all folds
    lines = noted.markdown().splitlines()
    assert lines[0].count("best epoch") == 2
    assert "| 65.0 ± 7.1 | 0.325 ± 0.035 | 60.0 ± 0.0 |  |" in lines[2]
    assert "chosen by the test clips themselves" in lines[-1]
    assert noted.rows()[0]["accuracy_best_epoch"] == pytest.approx(0.6)
    assert "best epoch" not in table().markdown().lower()


def test_a_seed_without_all_its_folds_does_not_count() -> None:
    assert table().seed_means("b", "accuracy") == {}
    assert table().spread("b", "mAP") is None


def test_in_words() -> None:
    assert in_words(Spread(0.6543, 0.0071, 3), percent=True) == "65.4 ± 0.7"
    assert in_words(Spread(0.2378, 0.0018, 3)) == "0.238 ± 0.002"
    assert in_words(Spread(0.6543, None, 1), percent=True) == "65.4"
    assert in_words(None) == ""


def test_markdown() -> None:
    assert table().markdown().splitlines() == [
        "| recipe | trainable parameters | accuracy, % | mAP | paper reports | the paper's row |",
        "|---|---:|---:|---:|---|---|",
        "| a | 1,234 | 65.0 ± 7.1 | 0.325 ± 0.035 | mAP 70.0 | Table 2: A, Table 3: A |",
        "| b | 1,234 |  |  |  |  |",
        "",
        "sounds: mean over test folds 1, 2; mean ± standard deviation over seeds 0, 1. 5 of 8 runs have finished; "
        "weights chosen by: last epoch.",
        "",
        "Failed: b, fold 2, seed 0: no such file",
    ]


def test_several_labels_have_no_accuracy() -> None:
    trials = [Trial("a", None, 0, Recipe(data="sounds"), Path("a"))]
    found = SweepTable({"a": PaperRow()}, trials, [Outcome("a", None, 0, 9, None, 0.4, 1.0, 1, "validation")], {})
    assert found.markdown().splitlines()[2] == "| a | 9 |  | 0.400 |  |  |"
    assert found.caption() == "sounds: test clips; seed 0. 1 of 1 runs have finished; weights chosen by: validation."


def test_files(tmp_path: Path) -> None:
    table().write(tmp_path / "out")
    assert (tmp_path / "out" / "table.md").read_text() == table().markdown() + "\n"
    rows = list(csv.DictReader((tmp_path / "out" / "table.csv").open()))
    assert [row["recipe"] for row in rows] == ["a", "b"]
    assert math.isclose(float(rows[0]["accuracy"]), 0.65)
    assert rows[0]["paper_figures"] == "mAP 70.0"
    assert rows[1]["accuracy_std"] == ""
    found = json.loads((tmp_path / "out" / "table.json").read_text())
    assert [run["accuracy"] for run in found["runs"]] == list(ACCURACY.values())
    assert found["failures"] == {"b, fold 2, seed 0": "no such file"}
    assert [row["seeds"] for row in found["rows"]] == [2, 0]
