"""What a call costs the host: `python bench/host.py`. The fused path with its launches replaced by nothing.

Tensors of a few elements, so that nothing but Python, PyTorch's dispatcher and allocator is timed: the fused path
against the "torch" backend and nn.Linear, in turns, in inference and with gradients. A GPU does the forward of the
paper's shape in some 85 microseconds by prediction: a host that takes longer is what limits it.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table
from timing import Timing, describe, in_turns, save
from torch import Tensor, nn

from fastloaa import LoAA
from fastloaa.kernels import interpreted, launchable
from fastloaa.kernels.remembered import forget
from fastloaa.ops.functional import loaa

DIM, RANK, FREQ, TIME = 16, 4, 2, 2
LINEAR = "nn.Linear"
CALLS = 5  # to a sample


@contextmanager
def stubbed() -> Iterator[None]:
    """The fused path is open to CPU tensors, and no kernel runs: results are whatever was in memory."""
    forget()
    with patch.object(interpreted, "INTERPRETED", True), patch.object(launchable, "start", lambda *_: None):
        yield
    forget()


def candidates(device: torch.device) -> dict[str, Callable[[Tensor], Tensor]]:
    """Functions of x [1, tokens, DIM]: both ways of the function, the module, and a Linear.

    Weights are stored channels_last, as for serving, or as Conv2d has them and brought into that order.
    """
    torch.manual_seed(0)
    skip = torch.randn(1, FREQ * TIME, DIM, device=device)
    module = {
        name: LoAA(DIM, RANK, "time", freq_bins=FREQ, backend=backend, device=device)
        for name, backend in (("trained", "triton"), ("served", "triton"), ("torch", "torch"))
    }
    module["served"].to(memory_format=torch.channels_last)

    def function(name: str) -> Callable[[Tensor], Tensor]:
        layer = module[name]
        options: dict[str, Any] = {"freq_bins": FREQ, "block_out": skip, "skip": skip, "backend": layer.backend}
        return partial(loaa, down_weight=layer.down.weight, up_weight=layer.up.weight, **options)

    return {
        "fused": function("served"),
        "fused, module": lambda x: module["served"](x, skip, skip),
        "fused, weights as trained": function("trained"),
        "fused, module, weights as trained": lambda x: module["trained"](x, skip, skip),
        "torch": function("torch"),
        LINEAR: nn.Linear(DIM, DIM, device=device),
    }


def measure(device: torch.device, rounds: int) -> dict[str, dict[str, Timing]]:
    """By mode and candidate, milliseconds of a call."""
    x = torch.randn(1, FREQ * TIME, DIM, device=device)
    trained = x.clone().requires_grad_()
    grad = torch.ones_like(x)

    def inference(call: Callable[[Tensor], Tensor], _: int) -> None:
        with torch.no_grad():
            for _ in range(CALLS):
                call(x)

    def training(call: Callable[[Tensor], Tensor], _: int) -> None:
        for _ in range(CALLS):
            call(trained).backward(grad)

    found = {}
    with stubbed():
        for mode, run in (("forward", inference), ("forward+backward", training)):
            calls = {name: partial(run, call) for name, call in candidates(device).items()}
            timings = in_turns(calls, device, rounds, calls=1)
            found[mode] = {
                name: Timing(tuple(sample / CALLS for sample in timing.samples)) for name, timing in timings.items()
            }
    return found


def rows(found: dict[str, dict[str, Timing]]) -> list[dict[str, Any]]:
    return [
        {
            "bench": "host",
            "provider": name,
            "mode": mode,
            "best_ms": round(timing.best, 5),
            "median_ms": round(timing.median, 5),
            # The best of many: medians of a busy machine are those of whoever else computes.
            "ratio": round(timing.best / timings[LINEAR].best, 2),
        }
        for mode, timings in found.items()
        for name, timing in timings.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--save", action="store_true", help="write the figures to bench/results/")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    console, device = Console(width=None if sys.stdout.isatty() else 120), torch.device(arguments.device)
    torch.set_num_threads(1)
    console.print(describe(device), soft_wrap=True)
    made = rows(measure(device, arguments.rounds))
    table = Table(title="microseconds of the host a call, kernels not launched", title_justify="left")
    for column in ("", "mode", "best", "median", f"best / {LINEAR}"):
        table.add_column(column, justify="right" if column not in ("", "mode") else "left", no_wrap=True)
    for row in made:
        times = (f"{row[name] * 1e3:.1f}" for name in ("best_ms", "median_ms"))
        table.add_row(row["provider"], row["mode"], *times, f"{row['ratio']:.2f}")
    console.print(table)
    if arguments.save:
        console.print(f"saved to {save('host', device, made)}")


if __name__ == "__main__":
    main()
