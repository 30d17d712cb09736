"""`fastloaa evaluate`: how well a trained run does on a split."""

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:  # what is heavy is imported where it is used, so that --help is quick
    from fastloaa.data import AudioSplits
    from fastloaa.training import Evaluation
    from fastloaa.training.recipe import Precision


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder that `fastloaa train --out` made.")],
    data: Annotated[str | None, typer.Option(help="Data set with the same classes, if not the run's own.")] = None,
    split: Annotated[Literal["train", "validation", "test"], typer.Option(help="Which clips.")] = "test",
    weights: Annotated[
        str | None, typer.Option(help="Weights of the backbone, if they are no longer where the run found them.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for scripts.")] = False,
) -> None:
    """Accuracy, mean average precision and loss of a trained run, with a table of the classes.

    Example: fastloaa evaluate runs/sounds --split validation
    """
    from rich.console import Console

    from fastloaa.data import DataError, load_splits
    from fastloaa.training import Recipe, load_run
    from fastloaa.training import evaluate as measure
    from fastloaa.training.distributed import process_state
    from fastloaa.training.rundir import RunDirectory

    processes, model = process_state(), load_run(run, weights)
    recipe = Recipe.load(RunDirectory(run).recipe)
    source = data or recipe.data
    splits = load_splits(source, test_fold=recipe.test_fold, validation=recipe.validation, seed=recipe.seed)
    if splits.classes != model.labels:
        different = sorted(set(splits.classes) ^ set(model.labels or ()))[:3] or ["their order"]
        raise DataError(f"{source}: other classes than {run} was trained on, they differ in {', '.join(different)}")
    clips = getattr(splits, split)
    if not clips:
        raise DataError(f"{source}: the {split} split is empty; choose another --split")
    if processes.is_main_process and data is None and _have_changed(RunDirectory(run).result, splits):
        print(
            f"note: {source}: has other clips, or in other splits, than when the run was trained; where they are "
            "divided at random, some of these may be clips that it was trained on",
            file=sys.stderr,
        )
    precision: Precision = recipe.precision
    if precision == "fp16" and processes.device.type != "cuda":  # trained elsewhere
        precision = "auto"
    with Console(stderr=True).status(f"Listening to {len(clips)} clips"):  # shows on a terminal only
        found = measure(
            model.to(processes.device),
            clips,
            batch_size=recipe.batch_size,
            workers=recipe.workers,
            loss=recipe.loss,
            precision=precision,
            multi_label=splits.multi_label,
            views=recipe.views,
        )
    processes.destroy_process_group()
    if not processes.is_main_process:  # the first one speaks
        return
    if as_json:
        named = {"run": str(run), "data": source, "split": split, "left_out": list(splits.left_out)}
        print(json.dumps(_plain(found, splits.classes) | named, indent=2))
    else:
        _print_table(found, splits.classes, splits.left_out)


def _have_changed(result: Path, splits: "AudioSplits") -> bool:
    """Whether the data are not those that a run was trained with, as far as its result tells."""
    from fastloaa.files import FileError, read_json

    with suppress(FileError):  # there is none, or it is another's concern
        noted = read_json(result)
        return isinstance(noted, dict) and noted.get("data_fingerprint") not in (None, splits.fingerprint())
    return False


def _plain(found: "Evaluation", labels: tuple[str, ...]) -> dict[str, object]:
    return found.summary() | {"classes": found.per_class(labels), "broken_files": list(found.broken)}


def _print_table(found: "Evaluation", labels: tuple[str, ...], left_out: tuple[str, ...]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    def percent(value: float | None) -> str:
        return "" if value is None else f"{value:.1%}"

    single = found.accuracy is not None
    table = Table("class", "clips", "average precision", *(["accuracy", "most often taken for"] if single else []))
    for column in table.columns[1:4]:
        column.justify = "right"
    for label, row in found.per_class(labels).items():
        cells = [escape(label), str(row["clips"]), percent(row["average_precision"])]
        table.add_row(*cells, *([percent(row["accuracy"]), escape(row["taken_for"] or "")] if single else []))
    console = Console()
    if not console.is_terminal:
        console.width = 10_000  # nothing is cut in a file or a pipe
    console.print(table)
    for line in (*left_out, *found.broken):
        print(f"left out: {line}")
    mean = f"mAP {found.mAP:.3f}"
    if found.accuracy is None:
        print(f"{mean} of {found.clips} clips, loss {found.loss:.4f}")
    else:
        print(f"accuracy {found.accuracy:.1%} of {found.clips} clips, loss {found.loss:.4f}")
        print(f"mean over classes: accuracy {found.macro_accuracy:.1%}, F1 {found.macro_f1:.1%}, {mean}")
