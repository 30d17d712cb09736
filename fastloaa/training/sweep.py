"""Several recipes over test folds and seeds: every run in a folder of its own, and one table of them all."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from datetime import timedelta
from functools import cache
from pathlib import Path

from rich.console import Console

from fastloaa.data import DataError, load_splits
from fastloaa.errors import user_line
from fastloaa.files import FileError, read_json, understanding
from fastloaa.files.locks import locked
from fastloaa.methods import OptionError
from fastloaa.training.distributed import process_state
from fastloaa.training.errors import RunError
from fastloaa.training.metrics import read_metrics
from fastloaa.training.recipe import Recipe
from fastloaa.training.run import train
from fastloaa.training.rundir import RunDirectory
from fastloaa.training.sweep_table import Outcome, SweepTable, Trial


def sweep(
    recipes: Mapping[str, Recipe],
    out: str | Path,
    *,
    seeds: Sequence[int] = (0,),
    folds: Sequence[int] | None = None,
    console: Console | None = None,
) -> SweepTable:
    """Train every recipe with every seed on every test fold, and write `table.md`, `.csv` and `.json` into `out`.

    A run's folder is `out/<recipe>/seed<seed>` or `out/<recipe>/fold<fold>-seed<seed>`. Given again, finished runs are
    read, an interrupted one goes on, and those that failed are tried again. The first seed comes first, so that its
    table is there early; the table is written anew after every run. A finished run whose recipe or clips were others
    does not count: it is one of the failures.

    Of several processes, one whose run fails ends the sweep: the others may be at that run still.

    Every run is tested once, with the weights of its last epoch or of the epoch that its validation clips choose: no
    choice is made by the test clips.

    Args:
        recipes: by the names of the table's rows, which are also those of the folders.
        seeds: of the runs, in place of the recipes' own.
        folds: to test on, in place of the recipes' own; None for data sets without folds.
        console: for progress; `rich.console.Console(quiet=True)` for none, standard output by default.

    Returns:
        The table; `failures` in it are the runs that ended with an error, while the others went on.

    Raises:
        OptionError: nothing to run, a name that cannot be a folder's, or a seed or fold given twice or below its
            lowest value.
        LockedError: another sweep is at work in `out`.
        WriteError: the table cannot be written.
    """
    trials = list(_trials(recipes, Path(out), seeds, folds))
    is_main = process_state().is_main_process
    with locked(out, Path(out, ".lock")) if is_main else nullcontext():
        return _sweep(recipes, trials, out, is_main, console)


def _sweep(
    recipes: Mapping[str, Recipe], trials: Sequence[Trial], out: str | Path, is_main: bool, console: Console | None
) -> SweepTable:
    console = (console or Console()) if is_main else Console(quiet=True)
    table = SweepTable({name: recipe.paper_row() for name, recipe in recipes.items()}, trials, [], {})
    waiting = sum(not RunDirectory(trial.folder).result.exists() for trial in trials)
    fingerprint = cache(_fingerprint)  # of this sweep: the data may have changed by the next one
    since, trained = time.perf_counter(), 0
    for number, trial in enumerate(trials, start=1):
        is_new = not RunDirectory(trial.folder).result.exists()
        if is_new:
            left = "" if not trained else f", {_remaining(since, trained, waiting)} left"
            _say(console, f"run {number} of {len(trials)}: {trial.title}{left}")
        try:
            table.outcomes.append(_run(trial, console, fingerprint))
        except Exception as error:  # a sweep runs for hours: what ails one run is reported and does not stop the others
            if process_state().num_processes > 1:  # or it would share the batches of its next run with their last one
                raise
            reason = user_line(error) or ""
            if not reason:
                console.print_exception()
                reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            table.failures[trial.title] = reason
            _say(console, f"failed: {trial.title}: {reason}")
        trained += is_new
        if is_main:
            table.write(out)
    return table


def _trials(
    recipes: Mapping[str, Recipe], out: Path, seeds: Sequence[int], folds: Sequence[int] | None
) -> Iterator[Trial]:
    for what, values in {"recipe": recipes, "seed": seeds, "fold": (1,) if folds is None else folds}.items():
        if not values or len(set(values)) < len(values):
            raise OptionError(f"expected one or more distinct {what}s, got {list(values)}")
    for name in recipes:
        if Path(name).name != name:
            raise OptionError(f"{name!r} cannot name a recipe's folder; expected a name without slashes")
    for seed in seeds:
        for fold in folds or (None,):
            for name, recipe in recipes.items():
                changes = {"seed": seed} | ({} if fold is None else {"test_fold": fold})
                folder = out / name / (f"seed{seed}" if fold is None else f"fold{fold}-seed{seed}")
                yield Trial(name, fold, seed, recipe.replace(**changes), folder)


def _run(trial: Trial, console: Console, fingerprint: Callable[..., str | None]) -> Outcome:
    """Train, or read what an earlier sweep has trained."""
    run, recipe = RunDirectory(trial.folder), trial.recipe
    is_new = not run.result.exists()
    if is_new:
        train(recipe, trial.folder, console=console)
    before, now = Recipe.load(run.recipe).to_dict(), recipe.to_dict()
    for name in now:
        if before[name] != now[name]:
            raise RunError(
                f"{trial.folder}: was trained with {name} {before[name]!r}, now {now[name]!r}; "
                f"give another --out, or delete the folder to train it anew"
            )
    result, metrics = read_json(run.result), read_metrics(run.metrics)
    with understanding(run.result, "the result of a run"):
        outcome, clips = Outcome.of(trial, result, metrics), result.get("data_fingerprint")
    present = clips if is_new else fingerprint(recipe.data, recipe.test_fold, recipe.validation, recipe.seed)
    if None not in (clips, present) and clips != present:
        raise RunError(
            f"{trial.folder}: was trained with other clips than {recipe.data} has now; "
            f"bring those back, give another --out, or delete the folder to train it anew"
        )
    return outcome


def _fingerprint(data: str, test_fold: int, validation: float | None, seed: int) -> str | None:
    """Which clips a run would have now; None if that cannot be read any more: its result is as good as it was."""
    with suppress(DataError, FileError):
        return load_splits(data, test_fold=test_fold, validation=validation, seed=seed).fingerprint()
    return None


def _remaining(since: float, trained: int, waiting: int) -> timedelta:
    """Time for the runs to come, at the pace so far."""
    return timedelta(seconds=round((time.perf_counter() - since) / trained * (waiting - trained)))


def _say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, markup=False, highlight=False)
