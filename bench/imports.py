"""What starting costs: `python bench/imports.py`. Processes in turns, against `python -c pass` and `import torch`."""

import argparse
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from timing import Timing, describe, in_turns, save

TORCH = "import torch"
PYTHON = [sys.executable, "-c"]
COMMANDS = {
    "python -c pass": [*PYTHON, "pass"],
    TORCH: [*PYTHON, "import torch"],
    "import torch, fastloaa": [*PYTHON, "import torch, fastloaa"],
    "from fastloaa import LoAA": [*PYTHON, "from fastloaa import LoAA"],
    "from fastloaa import AST": [*PYTHON, "from fastloaa import AST"],
    "fastloaa --help": [str(Path(sys.executable).with_name("fastloaa")), "--help"],
}


def measure(rounds: int) -> dict[str, Timing]:
    """Milliseconds from the start of a process to its end, files in the system's cache."""

    def start(command: list[str], _: int) -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    processes = {name: partial(start, command) for name, command in COMMANDS.items()}
    return in_turns(processes, torch.device("cpu"), rounds, calls=1)


def rows(timings: dict[str, Timing]) -> list[dict[str, Any]]:
    return [
        {
            "bench": "imports",
            "provider": name,
            "mode": "process",
            "best_ms": round(timing.best, 1),
            "median_ms": round(timing.median, 1),
            # The best of some: medians of a busy machine are those of whoever else computes.
            "over_torch_ms": round(timing.best - timings[TORCH].best, 1),
        }
        for name, timing in timings.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--save", action="store_true", help="write the figures to bench/results/")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(describe(torch.device("cpu")), soft_wrap=True)
    made = rows(measure(arguments.rounds))
    table = Table(title="seconds of a process", title_justify="left")
    for column in ("", "best", "median", f"best - {TORCH}"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for row in made:
        table.add_row(
            row["provider"], *(f"{row[name] / 1e3:.2f}" for name in ("best_ms", "median_ms", "over_torch_ms"))
        )
    console.print(table)
    if arguments.save:
        console.print(f"saved to {save('imports', torch.device('cpu'), made)}")


if __name__ == "__main__":
    main()
