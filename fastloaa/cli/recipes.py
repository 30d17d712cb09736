"""`fastloaa recipes`: the recipes that come with the package."""

import json
from typing import Annotated

import typer


def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this one's YAML, to save and change.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for scripts.")] = False,
) -> None:
    """List the recipes: the paper's row, the parameters that train, and the figure that the paper reports.

    Example: fastloaa recipes esc-50-attn-t-ffn-f-5 > mine.yaml
    then fastloaa train --recipe mine.yaml --data ESC-50 --out runs/mine
    """
    from rich.console import Console
    from rich.table import Table

    from fastloaa.training.paper import PaperRow
    from fastloaa.training.recipes import read_recipe, recipe_names, recipe_text

    if name is not None:
        print(json.dumps(read_recipe(name), indent=2) if as_json else recipe_text(name), end="\n" if as_json else "")
        return
    if as_json:
        print(json.dumps({each: read_recipe(each).get("paper") or {} for each in recipe_names()}, indent=2))
        return
    console = Console()
    if not console.is_terminal:
        console.width = 120  # of a file nobody knows how wide it is read
    table = Table("recipe", "the paper's row", box=None, pad_edge=False)
    table.add_column("trainable", justify="right", no_wrap=True)
    table.add_column("paper reports", no_wrap=True)
    table.columns[0].no_wrap = True
    for each in recipe_names():
        paper = PaperRow.read(read_recipe(each).get("paper") or {})
        trainable = "" if paper.trainable_parameters is None else f"{paper.trainable_parameters:,}"
        table.add_row(each, "\n".join(paper.rows), trainable, paper.figures_text())
    console.print(table)
