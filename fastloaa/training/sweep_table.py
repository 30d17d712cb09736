"""The table of a sweep: mean over folds, then mean and spread over seeds, the paper's figures beside them."""

import csv
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from fastloaa.files import replacing, write_json
from fastloaa.training.paper import PaperRow
from fastloaa.training.recipe import Recipe

Score = Literal["accuracy", "mAP"]


@dataclass(frozen=True)
class Trial:
    """One run that a sweep is to make."""

    name: str
    fold: int | None
    seed: int
    recipe: Recipe
    folder: Path

    @property
    def title(self) -> str:
        return f"{self.name}, {'' if self.fold is None else f'fold {self.fold}, '}seed {self.seed}"


@dataclass(frozen=True)
class Outcome:
    """What a run reached on its test clips; accuracy is None where clips have several labels."""

    name: str
    fold: int | None
    seed: int
    trainable_parameters: int
    accuracy: float | None
    mAP: float
    seconds: float
    chosen_epoch: int
    chosen_by: str

    @classmethod
    def of(cls, trial: Trial, result: Mapping[str, Any]) -> Self:
        """From a run's result.json."""
        kept = {name: result[name] for name in ("trainable_parameters", "seconds", "chosen_epoch", "chosen_by")}
        test = result["test"]
        return cls(trial.name, trial.fold, trial.seed, accuracy=test["accuracy"], mAP=test["mAP"], **kept)


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1) over seeds; of one seed, the deviation is None."""

    mean: float
    std: float | None
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


@dataclass(frozen=True)
class SweepTable:
    """What a sweep reached.

    Attributes:
        papers: for each recipe, what the paper says of it.
        trials: all runs, in their order.
        outcomes: of those that have finished.
        failures: why others ended, by `Trial.title`.
    """

    papers: Mapping[str, PaperRow]
    trials: Sequence[Trial]
    outcomes: list[Outcome]
    failures: dict[str, str]

    def seed_means(self, name: str, score: Score) -> dict[int, float]:
        """Of a recipe: for each seed of which every fold has finished, the mean over the folds."""
        folds = {trial.fold for trial in self.trials}
        means = {}
        for seed in dict.fromkeys(trial.seed for trial in self.trials):
            runs = [outcome for outcome in self.outcomes if (outcome.name, outcome.seed) == (name, seed)]
            values = [getattr(outcome, score) for outcome in runs]
            if len(values) == len(folds) and None not in values:
                means[seed] = statistics.fmean(values)
        return means

    def spread(self, name: str, score: Score) -> Spread | None:
        """Of a recipe, over the seeds of `seed_means`; None without one."""
        means = self.seed_means(name, score)
        return Spread.of(list(means.values())) if means else None

    def trainable_parameters(self, name: str) -> int | None:
        """Of a recipe; None before its first run has finished."""
        return next((outcome.trainable_parameters for outcome in self.outcomes if outcome.name == name), None)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each recipe, as plain values."""
        rows = []
        for name, paper in self.papers.items():
            row: dict[str, Any] = {"recipe": name, "trainable_parameters": self.trainable_parameters(name)}
            scores: tuple[Score, ...] = ("accuracy", "mAP")
            for score in scores:
                spread = self.spread(name, score)
                row |= {score: spread and spread.mean, f"{score}_std": spread and spread.std}
            row["seeds"] = spread.seeds if spread else 0
            row |= {"paper": ", ".join(paper.rows), "paper_figures": paper.figures_text()}
            rows.append(row)
        return rows

    def markdown(self) -> str:
        """The table as people read it, with what it says below."""
        lines = [
            "| recipe | trainable parameters | accuracy, % | mAP | paper reports | the paper's row |",
            "|---|---:|---:|---:|---|---|",
        ]
        for row in self.rows():
            parameters = row["trainable_parameters"]
            cells = (
                row["recipe"],
                "" if parameters is None else f"{parameters:,}",
                in_words(self.spread(row["recipe"], "accuracy"), percent=True),
                in_words(self.spread(row["recipe"], "mAP")),
                row["paper_figures"],
                row["paper"],
            )
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(
            [*lines, "", self.caption(), *(f"\nFailed: {run}: {why}" for run, why in self.failures.items())]
        )

    def caption(self) -> str:
        """What was run, and what the figures are."""
        data = ", ".join(sorted({trial.recipe.data for trial in self.trials}))
        folds = sorted({trial.fold for trial in self.trials if trial.fold is not None})
        seeds = list(dict.fromkeys(trial.seed for trial in self.trials))
        over = f"mean over test folds {_listed(folds)}" if folds else "test clips"
        spread = f"mean ± standard deviation over seeds {_listed(seeds)}" if len(seeds) > 1 else f"seed {seeds[0]}"
        chosen = ", ".join(sorted({outcome.chosen_by for outcome in self.outcomes}))
        return f"{data}: {over}; {spread}. {len(self.outcomes)} of {len(self.trials)} runs have finished" + (
            f"; weights chosen by: {chosen}." if chosen else "."
        )

    def write(self, folder: str | Path) -> None:
        """`table.md`, `table.csv` and, with every run in it, `table.json`."""
        folder, rows = Path(folder), self.rows()
        with replacing(folder / "table.md") as temporary:
            temporary.write_text(self.markdown() + "\n", encoding="utf-8")
        with replacing(folder / "table.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        write_json(folder / "table.json", self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        runs = [asdict(outcome) for outcome in self.outcomes]
        return {"rows": self.rows(), "runs": runs, "failures": self.failures, "caption": self.caption()}


def in_words(spread: Spread | None, percent: bool = False) -> str:
    """`54.1 ± 0.3`; "" for None."""
    if spread is None:
        return ""
    scale, digits = (100, 1) if percent else (1, 3)
    deviation = "" if spread.std is None else f" ± {scale * spread.std:.{digits}f}"
    return f"{scale * spread.mean:.{digits}f}{deviation}"


def _listed(numbers: Sequence[int]) -> str:
    """`1-5` for a row of numbers without gaps, else `1, 3`."""
    if len(numbers) > 2 and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}-{numbers[-1]}"
    return ", ".join(map(str, numbers))
