"""Answers on a screen and in a pipe: a table for people, a line of JSON for scripts."""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # heavy
    from rich.console import Console

    from fastloaa.export import Prediction

Named = Sequence[tuple[str, float]]
"""Classes with their probabilities, best first."""


def top_of(named: Named) -> list[dict[str, object]]:
    """Classes with their probabilities, as JSON has them."""
    return [{"label": label, "probability": probability} for label, probability in named]


def as_json(prediction: "Prediction") -> str:
    """One line."""
    answer: dict[str, object] = {"file": str(prediction.path)}
    if prediction.error is None:
        answer["top"] = top_of(list(zip(prediction.labels, prediction.probabilities, strict=True)))
        answer |= {"seconds": prediction.seconds, "heard": prediction.heard}
    else:
        answer["error"] = prediction.error
    return json.dumps(answer)


def csv_line(*cells: object) -> str:
    """Without its end."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


def write_json(prediction: "Prediction") -> None:
    """Print `as_json`."""
    print(as_json(prediction), flush=True)


def table_writer(paths: Sequence[Path], labels: Sequence[str]) -> Callable[["Prediction"], None]:
    """Print a table's head, and return what prints one row of it: rows appear as they come, not all at the end.

    Widths are of what a screen shows: Chinese characters, say, take two columns each.
    """
    from rich.cells import cell_len

    from fastloaa.text import printable

    console = _console()
    width = max(4, *(cell_len(printable(path)) for path in paths))
    if console.is_terminal:
        width = min(width, console.width // 2)
    write_row = row_writer(console, "file", width, labels)

    def write(prediction: "Prediction") -> None:
        if prediction.error is not None:
            console.print(printable(prediction.error), style="red", soft_wrap=not console.is_terminal)
            return
        name = printable(prediction.path)
        if cell_len(name) > width:  # the end of a path says most
            name = next(f"…{end}" for i in range(len(name)) if cell_len(end := name[i:]) < width)
        write_row(name, list(zip(prediction.labels, prediction.probabilities, strict=True)))

    return write


def time_writer(labels: Sequence[str]) -> Callable[[float, float, Named], None]:
    """Like `table_writer`, of windows: from when to when, in seconds, and what is heard there."""
    write_row = row_writer(_console(), "seconds", 23, labels)
    return lambda start, end, named: write_row(f"{start:10.3f} - {end:10.3f}", named)


def _console() -> "Console":
    from rich.console import Console

    return Console(markup=False, emoji=False, highlight=False)  # [brackets] in file names are no markup


def row_writer(console: "Console", head: str, width: int, labels: Sequence[str]) -> Callable[[str, Named], None]:
    """Print a table's head, and return what prints a row: what is answered, in a column of that width, and how."""
    from rich.cells import cell_len
    from rich.table import Column, Table

    from fastloaa.text import printable

    label_widths = [cell_len(printable(label)) for label in labels]
    if not console.is_terminal:
        console.width = width + 2 * sum(label_widths) + 10 * len(labels) + 50  # nothing is cut in a file or a pipe

    def write_cells(*cells: str, style: str = "") -> None:
        table = Table.grid(
            Column(width=width, no_wrap=True),
            Column(width=max(5, *label_widths), no_wrap=True),
            Column(width=11, justify="right"),
            Column(no_wrap=True),
            padding=(0, 2, 0, 0),
        )
        table.add_row(*cells, style=style)
        console.print(table)

    def write(name: str, named: Named) -> None:
        shares = [(printable(label), f"{probability:.1%}") for label, probability in named]
        (label, share), *further = shares or [("-", "")]  # none is probable enough
        write_cells(name, label, share, ", ".join(map(" ".join, further)))

    write_cells(head, "label", "probability", "further", style="bold")
    return write


def progress(
    predictions: Iterable["Prediction"], total: int, completed: int = 0, hidden: bool | None = None
) -> Iterator["Prediction"]:
    """A bar on stderr with files per second, where that is a terminal.

    Args:
        completed: how many of the total there were before.
        hidden: None: unless the answers themselves show there how far it is.
    """
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn, Task
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.1f} files/s")

    console = Console(stderr=True)
    hidden = sys.stdout.isatty() if hidden is None else hidden
    columns = (*Progress.get_default_columns(), Speed())
    # Without redirect_stdout=False rich would send the answers to stderr as well.
    with Progress(
        *columns, console=console, disable=hidden or not console.is_terminal, transient=True, redirect_stdout=False
    ) as bar:
        yield from bar.track(predictions, total, completed, description="Listening")
