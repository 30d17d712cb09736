"""Registers, spills, shared memory, shuffles and loops of the kernels on any GPU, compiled without one.

`python bench/compile_report.py --capability 80 90` prints a table for each chip with the frozen launch settings, the
largest tile of each; `--json` prints the same as a list of rows. `loop_instructions` are those of one trip of each
loop over products, added; `unpipelined_loop_loads` those loads in it for which a warp waits.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sass import read

from fastloaa.adapters.loaa import KERNELS as SHAPES
from fastloaa.kernels import configs, tile_launch
from fastloaa.kernels.launchable import Launch
from fastloaa.kernels.resources import CHIPS, Sample, WidenedSample, compile_launch, instructions

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
ADAPTERS = [(36, "time"), (36, "freq"), (54, "time"), (72, "time"), (72, "freq"), (108, "linear")]  # the paper's


@dataclass(frozen=True)
class Work:
    """One launch to compile: the adapter's rows and kernel, and what runs of it."""

    kernel: str
    dtype: str
    bottleneck: int
    kernel_size: tuple[int, int]
    launch: Launch


def work(capability: int, dim: int) -> Iterator[Work]:
    """Every kernel on the paper's adapters; of an adapter that takes several launches, the last part of its rows."""
    for kernel in configs.KERNELS:
        for name, dtype in DTYPES.items():
            for rank, shape in ADAPTERS:
                sample, size = Sample(kernel, dtype, rank, SHAPES[shape], dim), SHAPES[shape]
                part = slice(0, rank) if kernel == "weight_grad" else tile_launch.parts(kernel, sample.weights[0])[-1]
                taps, rows = max(size), part.stop - part.start
                columns = tile_launch.columns(rows, taps)
                chosen = configs.settings(kernel, capability, dtype.itemsize, dtype.itemsize, columns, taps, rows)[0]
                yield Work(kernel, name, rank, size, sample.launch(chosen, part))
    for name, dtype in DTYPES.items():
        for rank, shape in ADAPTERS:
            yield Work("widened", name, rank, SHAPES[shape], WidenedSample(dtype, rank, SHAPES[shape], dim).launch())


def trips(one: Work) -> tuple[int, ...]:
    """How often the loops over products run; their number is what counts here."""
    arguments = one.launch.arguments
    if one.kernel == "widened":
        return ()
    if one.kernel == "weight_grad":
        return (-(-arguments["chunk"] // arguments["BM"]),)
    return (arguments["D"] // arguments["BK"], arguments["D"] // arguments["BD"])


def row(one: Work, capability: int) -> dict[str, Any]:
    used, setting = compile_launch(one.launch, capability), one.launch.setting
    code = read(instructions(one.launch, capability), trips(one))
    programs = used.programs(CHIPS[capability], setting.warps)
    return {
        "kernel": one.kernel,
        "dtype": one.dtype,
        "bottleneck": one.bottleneck,
        "kernel_size": list(one.kernel_size),
        "capability": capability,
        "block_tokens": setting.block_tokens,
        "registers": used.registers,
        "stack_bytes": used.stack_bytes,
        "shared_bytes": used.shared_bytes,
        "warps": setting.warps,
        "programs_per_sm": programs,
        "warps_per_sm": programs * setting.warps,
        "shuffles": used.shuffles,
        "loop_instructions": round(sum(loop.trip for loop in code.loops)),
        "unpipelined_loop_loads": sum(loop.open_loads for loop in code.loops),
    }


def show(rows: list[dict[str, Any]], capability: int, dim: int) -> Table:
    chip = CHIPS[capability]
    limits = f"{chip.program_shared_kb} KB of shared memory for a program, 255 registers for a thread"
    table = Table(title=f"sm_{capability}, d={dim}: {limits}", title_justify="left")
    table.add_column("kernel, dtype", no_wrap=True)
    columns = {
        "tile": "block_tokens", "warps": "warps", "regs": "registers", "stack": "stack_bytes",
        "per SM": "programs_per_sm", "SHFL": "shuffles", "loops": "loop_instructions",
        "open loads": "unpipelined_loop_loads",
    }  # fmt: skip
    for column in ("r, kernel", "KB shared", *columns):
        table.add_column(column, justify="right", no_wrap=True)
    for one in rows:
        fits = not one["stack_bytes"] and one["shared_bytes"] <= chip.program_shared_kb * 1024
        table.add_row(
            f"{one['kernel']}, {one['dtype']}",
            f"{one['bottleneck']}, {tuple(one['kernel_size'])}",
            f"{one['shared_bytes'] / 1024:.0f}",
            *(str(one[field]) for field in columns.values()),
            style=None if fits else "red",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capability", type=int, nargs="+", default=[90], choices=list(CHIPS), help="default: 90")
    parser.add_argument("--dim", type=int, default=768, help="width of the model, default: 768")
    parser.add_argument("--json", action="store_true", help="print a list of rows")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    progress = Console(stderr=True)
    found = []
    for capability in arguments.capability:
        jobs = list(work(capability, arguments.dim))
        title = f"compiling for sm_{capability}"
        rows = [row(one, capability) for one in track(jobs, title, console=progress, transient=True)]
        if not arguments.json:
            console.print(show(rows, capability, arguments.dim))
        found += rows
    if arguments.json:
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
