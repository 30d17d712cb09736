"""Time every way of writing LoAA against each other: `python bench/speed.py`, `--save` to keep the figures.

All candidates run in turns in one process (see timing.py), so ratios within a run mean something on a busy machine;
"torch (again)" is a candidate timed against itself, and its ratio is the error of the others. On a GPU the times are
the device's, from a filled queue, and wall time stands beside them; `--save` writes the fused kernels' predicted times
(predict.py) with theirs, where the GPU is one that predictions know.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from chips import named
from providers import EAGER, FUSED, Provider, compiled, fused_runs, two_gemms
from rich.console import Console
from rich.table import Table
from shapes import DTYPES, Case, add_shapes, cases
from timing import Timing, copy_bandwidth, describe, in_turns, save
from torch import Tensor

from fastloaa.adapters.loaa import KERNELS
from fastloaa.grid import TokenGrid

REFERENCE = "conv2d-channels_last"  # the library's own, and the strongest plain Conv2d; ratios are to it
NO_ADAPTER = "two GEMMs alone"


class Inputs:
    """Several sets of the same shapes, so that no call finds its input in a cache by chance."""

    def __init__(self, case: Case, device: torch.device) -> None:
        dtype = DTYPES[case.dtype]
        shape = (case.batch, case.grid.tokens, case.dim)
        taps = KERNELS[case.kernel]

        def draw(*size: int, std: float = 1.0) -> Tensor:
            return (torch.randn(*size, device=device) * std).to(dtype)

        sets = 4 if device.type == "cuda" else 2
        self.x = [draw(*shape).requires_grad_() for _ in range(sets)]
        self.summands = [
            tuple(draw(*shape).requires_grad_() for _ in range(2 if case.summands else 0)) for _ in range(sets)
        ]
        self.grads = [draw(*shape) for _ in range(sets)]
        self.down, self.up = (
            draw(*size, *taps, std=0.03).requires_grad_()  # stored as the module and Conv2d store them
            for size in ((case.bottleneck, case.dim), (case.dim, case.bottleneck))
        )
        # As one stores the weights of convolutions for serving: model.to(memory_format=torch.channels_last).
        self.served = [w.detach().to(memory_format=torch.channels_last) for w in (self.down, self.up)]

    def inference(self, provider: Provider, grid: TokenGrid, call: int) -> Tensor:
        which = call % len(self.x)
        with torch.no_grad():
            return provider(self.x[which], *self.served, grid, *self.summands[which])

    def training(self, provider: Provider, grid: TokenGrid, call: int) -> tuple[Tensor, ...]:
        which = call % len(self.x)
        out = provider(self.x[which], self.down, self.up, grid, *self.summands[which])
        return torch.autograd.grad(out, [self.x[which], self.down, self.up, *self.summands[which]], self.grads[which])


def measure(
    case: Case, device: torch.device, rounds: int, bandwidth: float, with_compile: bool
) -> list[dict[str, Any]]:
    """Rows of one shape, forward and forward+backward, after checking that all candidates compute the same."""
    torch.manual_seed(0)
    inputs = Inputs(case, device)
    providers = dict(EAGER)
    if with_compile:
        providers |= {f"{name}, compiled": compiled(provider) for name, provider in EAGER.items()}
    if fused_runs(device):
        providers["triton"] = FUSED
    check_equal(case, inputs, providers)

    rows = []
    for mode, run in (("forward", inputs.inference), ("forward+backward", inputs.training)):
        candidates: dict[str, Callable[[int], Any]] = {
            name: partial(run, provider, case.grid) for name, provider in providers.items()
        }
        candidates["torch (again)"] = partial(run, EAGER["torch"], case.grid)
        if mode == "forward":
            candidates[NO_ADAPTER] = partial(run, two_gemms, case.grid)
        timings = in_turns(candidates, device, rounds, queued=True)
        floor = case.floor_ms(mode, bandwidth)
        rows += [row(case, mode, provider, timing, floor, bandwidth) for provider, timing in timings.items()]
    return rows


def add_predictions(case: Case, rows: list[dict[str, Any]], device_name: str) -> None:
    """Predicted milliseconds (low, middle, high) of the launches that each row of the fused kernels makes."""
    import predict  # needs triton

    gpu = named(device_name)
    if gpu is None:
        return
    launches = [(predict.name_of(launch), predict.predict(launch, gpu)) for launch in predict.launches(case, gpu)]
    for row in rows:
        if row["provider"] == "triton":
            made = [one for name, one in launches if row["mode"] != "forward" or name == "forward"]
            for name in ("low_us", "predicted_us", "high_us"):
                row[name.replace("_us", "_ms")] = round(sum(getattr(one, name) for one in made) / 1e3, 4)


def check_equal(case: Case, inputs: Inputs, providers: dict[str, Provider]) -> None:
    expected = inputs.inference(EAGER["conv2d"], case.grid, 0).double()
    bound = 1e-5 if case.dtype == "fp32" else 2e-2
    for name, provider in providers.items():
        error = (inputs.inference(provider, case.grid, 0).double() - expected).norm() / expected.norm()
        if not error < bound:
            sys.exit(f"{name} computes something else on {case}: relative error {error:.1e}; nothing was timed")


def row(case: Case, mode: str, provider: str, timing: Timing, floor: float, bandwidth: float) -> dict[str, Any]:
    """One line of a results file; names are those that docs and plots read."""
    return {
        "bench": "speed",
        "provider": provider,
        "mode": mode,
        **{name: getattr(case, name) for name in case.__dataclass_fields__},
        "best_ms": round(timing.best, 4),
        "median_ms": round(timing.median, 4),
        "p20_ms": round(timing.percentile(20), 4),
        "p80_ms": round(timing.percentile(80), 4),
        "wall_ms": round(timing.wall, 4),
        "floor_ms": round(floor, 4),
        "gbps": round(floor / timing.median * bandwidth / 1e9, 1),
    }


def show(console: Console, case: Case, rows: list[dict[str, Any]]) -> None:
    title = (
        f"B={case.batch} grid {case.freq}x{case.time} d={case.dim} r={case.bottleneck} {case.kernel} {case.dtype}, "
        + ("block_out + skip + branch" if case.summands else "branch alone")
    )
    table = Table(title=title, title_justify="left", expand=False)
    table.add_column("", no_wrap=True)
    for column in ("best ms", "median ms", "wall ms", "GB/s", "of floor", "best ratio", "median ratio"):
        table.add_column(column, justify="right")
    for mode in ("forward", "forward+backward"):
        part = [r for r in rows if r["mode"] == mode]
        one = next(r for r in part if r["provider"] == REFERENCE)
        table.add_row(f"[bold]{mode}[/bold]")
        for r in sorted(part, key=lambda r: r["best_ms"]):
            table.add_row(
                r["provider"],
                f"{r['best_ms']:.3f}",
                f"{r['median_ms']:.3f}",
                f"{r['wall_ms']:.3f}",
                f"{r['gbps']:.0f}",
                f"{r['floor_ms'] / r['median_ms']:.0%}",
                f"{r['best_ms'] / one['best_ms']:.2f}",
                f"{r['median_ms'] / one['median_ms']:.2f}",
            )
    console.print(table)


def show_summary(console: Console, rows: list[dict[str, Any]]) -> None:
    """The fused kernel against the fastest of all others, one line a shape."""
    table = Table(title="fused / the fastest of the others (median)", title_justify="left")
    for column in ("shape", "mode", "fused ms", "of floor", "fastest other", "ms", "ratio"):
        table.add_column(column, no_wrap=True)
    for shape in dict.fromkeys(shape_name(r) for r in rows):
        for mode in ("forward", "forward+backward"):
            part = [r for r in rows if shape_name(r) == shape and r["mode"] == mode]
            fused = next(r for r in part if r["provider"] == "triton")
            others = [r for r in part if r["provider"] not in ("triton", NO_ADAPTER)]
            other = min(others, key=lambda r: r["median_ms"])
            ratio = fused["median_ms"] / other["median_ms"]
            table.add_row(
                shape,
                mode,
                f"{fused['median_ms']:.3f}",
                f"{fused['floor_ms'] / fused['median_ms']:.0%}",
                other["provider"],
                f"{other['median_ms']:.3f}",
                f"{ratio:.2f}" if ratio <= 1 else f"[bold red]{ratio:.2f}[/bold red]",
            )
    console.print(table)


def shape_name(row: dict[str, Any]) -> str:
    summands = " +2" if row["summands"] else ""
    return f"{row['batch']}x{row['freq']}x{row['time']} r{row['bottleneck']} {row['kernel']} {row['dtype']}{summands}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_shapes(parser)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--compile", action="store_true", help="torch.compile of each as well (minutes)")
    parser.add_argument("--save", action="store_true", help="write the figures to bench/results/")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()

    console, device = Console(), torch.device(arguments.device)
    console.print(describe(device), soft_wrap=True)
    bandwidth = copy_bandwidth(device)
    console.print(f"copy bandwidth {bandwidth / 1e9:.0f} GB/s; the floor is the bytes that must move over it")
    rows: list[dict[str, Any]] = []
    for case in cases(arguments, on_gpu=device.type == "cuda"):
        measured = measure(case, device, arguments.rounds, bandwidth, arguments.compile)
        if arguments.save and device.type == "cuda":
            add_predictions(case, measured, torch.cuda.get_device_name(device))
        show(console, case, measured)
        rows += measured
    if fused_runs(device):
        show_summary(console, rows)
    else:
        console.print("no CUDA device: the fused kernel was not timed (Triton's interpreter says nothing of speed)")
    if arguments.save:
        console.print(f"saved to {save('speed', device, rows)}")


if __name__ == "__main__":
    main()
