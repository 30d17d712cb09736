"""`fastloaa sweep`: several recipes over folds and seeds, and one table of them all."""

from pathlib import Path
from typing import Annotated

import typer


def sweep(
    recipes: Annotated[list[str], typer.Argument(help="Names that `fastloaa recipes` lists, or YAML files.")],
    data: Annotated[str, typer.Option(help="The data set, as for `fastloaa train`.")],
    out: Annotated[Path, typer.Option(help="Folder for the runs and the table; what is in it goes on.")],
    seeds: Annotated[str, typer.Option(help="Such as 0-2 or 0,1,2.")] = "0",
    folds: Annotated[
        str | None, typer.Option(help="To test on, such as 1-5, for sets in folds. Default: the recipes' own.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A field of every recipe, e.g. --set precision=bf16."),
    ] = None,
) -> None:
    """Train recipes with every seed on every test fold, and write one table: mean over folds, mean ± deviation over
    seeds, and the paper's figure beside them.

    Every run has its folder under --out. The same command again reads what has finished and goes on with the rest. One
    that fails is reported at the end and does not stop the others. No choice is made by the test clips.

    Example: fastloaa sweep esc-50-probe esc-50-attn-t-ffn-f-5 --data ESC-50 --out runs/esc --seeds 0-2 --folds 1-5
    """
    from fastloaa.cli.train import assemble
    from fastloaa.methods import OptionError
    from fastloaa.training.distributed import process_state
    from fastloaa.training.recipe import parse_assignments
    from fastloaa.training.sweep import sweep as run

    given = parse_assignments(assignments or [])
    for name, option in {"seed": "--seeds", **({"test_fold": "--folds"} if folds else {})}.items():
        if name in given:
            raise OptionError(f"--set {name} would have no effect, a sweep's are those of {option}; give them there")
    chosen = {}
    for recipe in recipes:
        name = Path(recipe).stem if Path(recipe).suffix in (".yaml", ".yml") else recipe
        if name in chosen:
            raise OptionError(f"two recipes are called {name}; rename one of the files")
        chosen[name] = assemble(recipe, {"data": data}, {}, assignments or [])
    try:
        table = run(chosen, out, seeds=numbers(seeds), folds=None if folds is None else numbers(folds))
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on in {out}")
        raise
    processes = process_state()
    if processes.is_main_process:
        print(f"\n{table.markdown()}\n\n{out / 'table.md'}, .csv, .json")
    processes.destroy_process_group()
    if table.failures:
        raise typer.Exit(1)


def numbers(text: str) -> list[int]:
    """`0-2` or `0,1,2` -> [0, 1, 2]; spaces will do for commas.

    Raises:
        OptionError: anything else.
    """
    from fastloaa.methods import OptionError

    found: list[int] = []
    for part in text.replace(",", " ").split():
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise OptionError(f"expected numbers such as 1-5 or 0,1,2; got {text!r}")
        found += range(int(first), int(last or first) + 1)
    return found
