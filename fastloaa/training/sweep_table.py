"""The table of a sweep: mean over folds, then mean and spread over seeds, the paper's figures beside them."""

import csv
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from typing_extensions import Self

from fastloaa.files import replacing, write_json
from fastloaa.inputs.options import check_types
from fastloaa.training.paper import PaperRow
from fastloaa.training.recipe import Recipe

Score = Literal["accuracy", "mAP"]
SCORES: tuple[Score, ...] = ("accuracy", "mAP")


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
    """What a run reached on its test clips; accuracy is None where clips have several labels.

    `by_epoch` is what its metrics say of the test clips after each epoch, if the recipe has them noted.
    """

    name: str
    fold: int | None
    seed: int
    trainable_parameters: int
    accuracy: float | None
    mAP: float
    seconds: float
    chosen_epoch: int
    chosen_by: str
    by_epoch: Mapping[Score, Sequence[float | None]] | None = None

    def __post_init__(self) -> None:
        check_types(self)

    @classmethod
    def of(cls, trial: Trial, result: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]) -> Self:
        """From a run's result.json and metrics.jsonl."""
        kept = {name: result[name] for name in ("trainable_parameters", "seconds", "chosen_epoch", "chosen_by")}
        test, by_epoch = result["test"], None
        if trial.recipe.test_every_epoch:
            by_epoch = {score: [row[f"test_{score}"] for row in metrics] for score in SCORES}
        return cls(
            trial.name, trial.fold, trial.seed, accuracy=test["accuracy"], mAP=test["mAP"], by_epoch=by_epoch, **kept
        )


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1) over seeds; of one seed, the deviation is None."""

    mean: float
    std: float | None
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))

    @classmethod
    def of_any(cls, by_seed: Mapping[int, float]) -> Self | None:
        """None without a seed."""
        return cls.of(list(by_seed.values())) if by_seed else None


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
        means = {}
        for seed, runs in self._whole_seeds(name).items():
            values = [getattr(outcome, score) for outcome in runs]
            if None not in values:
                means[seed] = statistics.fmean(values)
        return means

    def best_epochs(self, name: str, score: Score) -> dict[int, float]:
        """Of a recipe whose runs note the test clips after every epoch: for each seed, the mean over the folds after
        the epoch where that is highest. The test clips choose: this is how AST reports ESC-50, and too good.
        """
        best = {}
        for seed, runs in self._whole_seeds(name).items():
            noted = [outcome.by_epoch[score] for outcome in runs if outcome.by_epoch is not None]
            values = [[value for value in epoch if value is not None] for epoch in zip(*noted, strict=True)]
            if len(noted) == len(runs) and all(len(epoch) == len(runs) for epoch in values):
                best[seed] = max(map(statistics.fmean, values))
        return best

    def _whole_seeds(self, name: str) -> dict[int, list[Outcome]]:
        """The runs of a recipe by seed, without seeds of which a fold is missing."""
        folds = {trial.fold for trial in self.trials}
        seeds = dict.fromkeys(trial.seed for trial in self.trials)
        runs = {seed: [o for o in self.outcomes if (o.name, o.seed) == (name, seed)] for seed in seeds}
        return {seed: outcomes for seed, outcomes in runs.items() if len(outcomes) == len(folds)}

    def spread(self, name: str, score: Score) -> Spread | None:
        """Of a recipe, over the seeds of `seed_means`; None without one."""
        return Spread.of_any(self.seed_means(name, score))

    @property
    def tests_every_epoch(self) -> bool:
        """Whether there is a run that notes its test clips after every epoch."""
        return any(trial.recipe.test_every_epoch for trial in self.trials)

    def trainable_parameters(self, name: str) -> int | None:
        """Of a recipe; None before its first run has finished."""
        return next((outcome.trainable_parameters for outcome in self.outcomes if outcome.name == name), None)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each recipe, as plain values."""
        rows = []
        for name, paper in self.papers.items():
            row: dict[str, Any] = {"recipe": name, "trainable_parameters": self.trainable_parameters(name)}
            for score in SCORES:
                spread = self.spread(name, score)
                row |= {score: spread and spread.mean, f"{score}_std": spread and spread.std}
                if self.tests_every_epoch:
                    best = Spread.of_any(self.best_epochs(name, score))
                    row |= {f"{score}_best_epoch": best and best.mean, f"{score}_best_epoch_std": best and best.std}
            row["seeds"] = spread.seeds if spread else 0
            row |= {"paper": ", ".join(paper.rows), "paper_figures": paper.figures_text()}
            rows.append(row)
        return rows

    def markdown(self) -> str:
        """The table as people read it, with what it says below."""
        best = ("accuracy, %, best epoch", "mAP, best epoch") if self.tests_every_epoch else ()
        heads = ("recipe", "trainable parameters", "accuracy, %", "mAP", *best, "paper reports", "the paper's row")
        lines = [f"| {' | '.join(heads)} |", f"|---|---:|---:|---:|{'---:|' * len(best)}---|---|"]
        for row in self.rows():
            name, parameters = row["recipe"], row["trainable_parameters"]
            reached = [in_words(self.spread(name, score), score == "accuracy") for score in SCORES]
            if best:
                bests = {score: Spread.of_any(self.best_epochs(name, score)) for score in SCORES}
                reached += [in_words(spread, score == "accuracy") for score, spread in bests.items()]
            cells = (
                name,
                "" if parameters is None else f"{parameters:,}",
                *reached,
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
        caption = f"{data}: {over}; {spread}. {len(self.outcomes)} of {len(self.trials)} runs have finished"
        caption += f"; weights chosen by: {chosen}." if chosen else "."
        if self.tests_every_epoch:
            caption += (
                " Best epoch: where the mean over the folds is highest, chosen by the test clips themselves, as AST "
                "reports ESC-50."
            )
        return caption

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
