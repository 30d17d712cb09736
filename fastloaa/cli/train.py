"""`fastloaa train`: adapt a model to a data set."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:  # what is heavy is imported where it is used, so that --help is quick
    from fastloaa.training import Recipe


def train(
    out: Annotated[Path, typer.Option(help="Folder for the result; an interrupted run in it goes on.")],
    data: Annotated[
        str | None, typer.Option(help="ESC-50's layout (meta/esc50.csv, audio/) or one folder of sounds per class.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="loaa, probe (head alone) or full (everything). Default: loaa.")
    ] = None,
    attn: Annotated[
        str | None, typer.Option(help="Adapter beside attention: time, freq, linear, '[3, 3]' or none. Default: time.")
    ] = None,
    ffn: Annotated[str | None, typer.Option(help="Adapter beside the FFN: the same. Default: freq.")] = None,
    bottleneck: Annotated[int | None, typer.Option(help="Width of the adapters. Default: 36.")] = None,
    backbone: Annotated[
        str | None, typer.Option(help="A VisionTransformer of timm. Default: deit_base_distilled_patch16_384.")
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
        int | None, typer.Option(help="For ESC-50's layout: the fold to test on, 1 to 5. Default: 1.")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="YAML file to start from; the options here change it.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other field of a recipe, e.g. --set mixup=0.5."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that is in the folder.")] = False,
) -> None:
    """Train a model on a folder of sounds, and test it once with the best weights.

    The folder then holds recipe.yaml (all settings), metrics.jsonl (a line per epoch), result.json, and the weights.

    Example: fastloaa train --data sounds --out runs/sounds --weights timm --epochs 10
    """
    from rich.console import Console

    from fastloaa.training import train as run

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
        print(f"stopped; the same command goes on from the last checkpoint in {out}")
        raise typer.Exit(130) from None
    chosen = f"epoch {result.chosen_epoch}, the {'best by validation' if result.chosen_by == 'validation' else 'last'}"
    print(
        f"test accuracy {result.test.accuracy:.1%} of {result.test.clips} clips ({chosen}); loss {result.test.loss:.4f}"
    )
    if result.broken_files:
        print(f"{len(result.broken_files)} files could not be read and were left out; result.json names them")
    print(
        f"{result.trainable_parameters:,} parameters, {result.seconds:.0f} s of training: {out / result.weights_file}"
    )


def assemble(
    file: Path | None,
    named: Mapping[str, Any],
    method_options: Mapping[str, Any],
    assignments: list[str],
) -> "Recipe":
    """The recipe file, changed by the options that were given (not None), then by the assignments.

    Raises:
        OptionError: what does not make a recipe.
    """
    from fastloaa.training.recipe import Recipe, merged, parse_assignments, parse_value, read_yaml

    values = read_yaml(file) if file else {}
    given = {name: value for name, value in named.items() if value is not None}
    options = {
        name: parse_value(value) if isinstance(value, str) else value
        for name, value in method_options.items()
        if value is not None
    }
    if given.get("method", values.get("method")) != values.get("method"):
        values.pop("method_options", None)  # they belong to the method of the file
    if given.get("weights") == "none":
        given["weights"] = None
    values = merged(values, given | ({"method_options": options} if options else {}))
    return Recipe.from_dict(merged(values, parse_assignments(assignments)))
