"""`fastloaa train`: adapt a model to a data set."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:  # what is heavy is imported where it is used, so that --help is quick
    from fastloaa.training import Recipe, Result


def train(
    out: Annotated[Path, typer.Option(help="Folder for the result; an interrupted run in it goes on.")],
    data: Annotated[
        str | None,
        typer.Option(
            help="A folder of sounds per class, ESC-50, Speech Commands, EPIC-SOUNDS, AudioSet, or a split.csv."
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="loaa, parallel, probe, full, convpass, aat, lora or prompt. Default: loaa."),
    ] = None,
    attn: Annotated[
        str | None, typer.Option(help="Adapter beside attention: time, freq, linear, '[3, 3]' or none. Default: time.")
    ] = None,
    ffn: Annotated[str | None, typer.Option(help="Adapter beside the FFN: the same. Default: freq.")] = None,
    bottleneck: Annotated[int | None, typer.Option(help="Width of the adapters. Default: 36.")] = None,
    backbone: Annotated[
        str | None, typer.Option(help="A VisionTransformer or Eva of timm. Default: deit_base_distilled_patch16_384.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Of the backbone: timm (downloads), a file, or none (random). Default: none.")
    ] = None,
    frames: Annotated[int | None, typer.Option(help="Of 10 ms each. Default: what 95% of the clips fit into.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Default: 25.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Clips in a step. Default: 48.")] = None,
    lr: Annotated[float | None, typer.Option(help="Largest learning rate. Default: 5e-4.")] = None,
    seed: Annotated[int | None, typer.Option(help="Default: 0.")] = None,
    test_fold: Annotated[
        int | None, typer.Option(help="For sets in folds, such as ESC-50: the one to test on. Default: 1.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="One that `fastloaa recipes` lists, or a YAML file, to start from; the options change it."),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other field of a recipe, e.g. --set mixup=0.5."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that is in the folder.")] = False,
) -> None:
    """Train a model on a folder of sounds, and test it once with the best weights.

    The folder then holds recipe.yaml (all settings), metrics.jsonl (a line per epoch), result.json, the weights, and
    curves.png and confusion.png to look at.

    Example: fastloaa train --data sounds --out runs/sounds --weights timm --epochs 10

    A row of the paper: fastloaa train --recipe esc-50-attn-t-ffn-f-5 --data ESC-50 --out runs/esc-50

    On two GPUs: accelerate launch --num_processes 2 -m fastloaa.cli train --data sounds --out runs/sounds
    """
    from rich.console import Console

    from fastloaa.training import train as run
    from fastloaa.training.distributed import process_state

    named = {
        "data": data,
        "method": method,
        "backbone": backbone,
        "weights": weights,
        "frames": frames,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "seed": seed,
        "test_fold": test_fold,
    }
    console = Console()
    try:
        result = run(
            assemble(recipe, named, {"attn": attn, "ffn": ffn, "bottleneck": bottleneck}, assignments or []),
            out,
            overwrite=overwrite,
            console=console,
        )
    except KeyboardInterrupt:
        again = "the same command without --overwrite" if overwrite else "the same command"
        print(f"stopped; {again} goes on from the last checkpoint in {out}")
        raise
    processes = process_state()
    if processes.is_main_process:
        _print(result, out)
    processes.destroy_process_group()


def _print(result: "Result", out: Path) -> None:
    chosen = {
        "validation": f"epoch {result.chosen_epoch}, the best by validation",
        "last epoch": f"epoch {result.chosen_epoch}, the last",
        "average": f"the average of the epochs up to {result.chosen_epoch}",
    }
    test = result.test
    reached = f"mAP {test.mAP:.3f}" if test.accuracy is None else f"accuracy {test.accuracy:.1%}"
    print(f"test {reached} of {test.clips} clips ({chosen[result.chosen_by]}); loss {test.loss:.4f}")
    if result.broken_files:
        print(f"{len(result.broken_files)} files could not be read and were left out; result.json names them")
    print(
        f"{result.trainable_parameters:,} parameters, {result.seconds:.0f} s of training: {out / result.weights_file}"
    )


def assemble(
    base: str | Path | None,
    named: Mapping[str, Any],
    method_options: Mapping[str, Any],
    assignments: list[str],
) -> "Recipe":
    """A recipe by name or file, changed by the options that were given (not None), then by the assignments.

    Raises:
        OptionError: what does not make a recipe.
    """
    from fastloaa.training.recipe import Recipe, merged, parse_assignments, parse_value
    from fastloaa.training.recipes import read_recipe

    values = {} if base is None else read_recipe(base)
    given = {name: value for name, value in named.items() if value is not None}
    options = {
        name: parse_value(value) if isinstance(value, str) else value
        for name, value in method_options.items()
        if value is not None
    }
    if given.get("weights") == "none":
        given["weights"] = None
    changes = merged(given | ({"method_options": options} if options else {}), parse_assignments(assignments))
    for choice in ("method", "schedule"):
        before = values.get(choice, getattr(Recipe, choice))
        if changes.get(choice, before) != before:
            values.pop(f"{choice}_options", None)  # they belong to the choice of the recipe
    return Recipe.from_dict(merged(values, changes))
