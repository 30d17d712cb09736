"""What several adapters by name cost: `python bench/switching.py`, `--save` to keep the figures.

One forward pass of a batch, without gradients: the model alone with one task's adapters, the model with all of them and
one chosen, a choice for each clip, and what one does without that: a pass for each task with its clips. Candidates run
in turns (see timing.py).
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from models import BARE, Case, Variant, parse, rows, say_machine, show
from rich.console import Console
from timing import describe, in_turns, save
from torch import Tensor, nn

from fastloaa import adapt, model_adapters, name_adapters

TASKS = ("birds", "speech", "rooms", "engines")


@contextmanager
def alone(model: nn.Module) -> Iterator[nn.Module]:
    yield model


def candidates(case: Case, device: torch.device) -> dict[str, Callable[[int], Tensor]]:
    """What is timed, by name."""
    bare = Variant(BARE, "full", {}).build(case, device).eval()
    present = TASKS[: case.batch]
    adapted = {task: adapt(copy.deepcopy(bare)).eval() for task in present}
    named = name_adapters(copy.deepcopy(bare), adapted)
    log_mels = [case.log_mel(device) for _ in range(2)]
    tasks = [present[clip % len(present)] for clip in range(case.batch)]

    def run(model: nn.Module, names: Any = None) -> Callable[[int], Tensor]:
        def call(number: int) -> Tensor:
            choice = alone(model) if names is None else model_adapters(model, names)
            with torch.no_grad(), case.precision(device), choice:
                return model(log_mels[number % 2])

        return call

    def passes(number: int) -> Tensor:
        log_mel = log_mels[number % 2]
        parts = []
        with torch.no_grad(), case.precision(device):
            for first, task in enumerate(present):
                with model_adapters(named, task):
                    parts.append(named(log_mel[first :: len(present)]))
        return torch.cat(parts)

    return {
        BARE: run(bare),
        "adapted, alone": run(adapted["birds"]),
        "by name, one for all": run(named, "birds"),
        f"by name, {len(present)} tasks, clip by clip": run(named, tasks),
        f"by name, {len(present)} tasks, a pass for each": passes,
    }


def main() -> None:
    cases, arguments = parse(__doc__ or "", cpu_grids=["8x25"], rounds=15)
    console, device = Console(), torch.device(arguments.device)
    say_machine(console, describe(device), cases[0], device)
    measured: list[dict[str, Any]] = []
    for case in cases:
        timings = in_turns(dict(candidates(case, device)), device, arguments.rounds, calls=1)
        lines = rows("switching", "forward", case, timings)
        show(console, case, lines)
        measured += lines
    if arguments.save:
        console.print(f"saved to {save('switching', device, measured)}")


if __name__ == "__main__":
    main()
