"""Registers, spills, shared memory and matrix instructions of the kernels on any GPU, compiled without one.

`python bench/compile_report.py --capability 80 90` prints a table for each chip with the frozen launch settings.
"""

import argparse
import sys
from collections.abc import Iterator

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from fastloaa.adapter import KERNELS as SHAPES
from fastloaa.kernels import configs, prepare
from fastloaa.kernels.prepare import Launch
from fastloaa.kernels.resources import CHIPS, Sample, WidenedSample, compile_launch

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
ADAPTERS = [(36, "time"), (72, "time"), (108, "linear")]  # the paper's
COLUMNS = ("r x taps", "columns", "tile", "warps", "stages", "regs", "stack", "KB shared", "matrix", "per SM")


def launches(capability: int, dim: int) -> Iterator[tuple[Sample | WidenedSample, Launch]]:
    """Every kernel on the paper's adapters; of an adapter that takes several launches, one."""
    for kernel in configs.KERNELS:
        for dtype in DTYPES.values():
            for rank, shape in ADAPTERS:
                taps = max(SHAPES[shape])
                widest = configs.widest(kernel, capability, dtype.itemsize)
                if kernel != "weight_grad":
                    rank //= -(-rank * taps // widest)
                columns = prepare.packed(rank, taps)[1]
                sample = Sample(kernel, dtype, rank, SHAPES[shape], dim)
                yield sample, sample.launch(configs.setting(kernel, capability, dtype.itemsize, columns))
    for dtype in DTYPES.values():
        for rank, shape in ADAPTERS:
            widened = WidenedSample(dtype, rank, SHAPES[shape], dim)
            yield widened, widened.launch()


def report(capability: int, dim: int, console: Console) -> Table:
    chip = CHIPS[capability]
    limits = f"{chip.program_shared_kb} KB of shared memory for a program, 255 registers for a thread"
    table = Table(title=f"sm_{capability}, d={dim}: {limits}", title_justify="left")
    table.add_column("kernel, dtype", no_wrap=True)
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    names = {dtype: name for name, dtype in DTYPES.items()}
    work = dict(launches(capability, dim)).items()
    for sample, launch in track(work, f"compiling for sm_{capability}", console=console, transient=True):
        used = compile_launch(launch, capability)
        chosen, arguments = launch.setting, launch.arguments
        table.add_row(
            f"{sample.kernel}, {names[sample.dtype]}",
            f"{sample.rank} x {max(sample.size)}",
            str(arguments.get("KP") or arguments.get("BC") or arguments["BR"]),
            f"{arguments.get('BM', chosen.block_tokens)} x {arguments['BD']}",
            str(chosen.warps),
            str(chosen.stages),
            str(used.registers),
            str(used.stack_bytes),
            f"{used.shared_bytes / 1024:.0f}",
            ", ".join(f"{count} {name}" for name, count in used.matrix_instructions.items()),
            str(used.programs(chip, chosen.warps)),
            style=None if used.fits(chip) else "red",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capability", type=int, nargs="+", default=[90], choices=list(CHIPS), help="default: 90")
    parser.add_argument("--dim", type=int, default=768, help="width of the model, default: 768")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    for capability in arguments.capability:
        console.print(report(capability, arguments.dim, console))


if __name__ == "__main__":
    main()
