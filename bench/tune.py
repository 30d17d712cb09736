"""Search launch settings on the GPU at hand: `python bench/tune.py --save FILE`.

For each kernel and class of widths a grid of settings is compiled in parallel, what spills or needs more shared memory
than the chip has is left out, and the rest is timed in turns with the frozen setting. The file is used with
`fastloaa.kernels.configs.load_table(FILE)`.
"""

import argparse
import itertools
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from timing import describe, in_turns, machine

from fastloaa.files import write_json
from fastloaa.kernels import configs
from fastloaa.kernels.chip import capability
from fastloaa.kernels.configs import Key, Setting
from fastloaa.kernels.launchable import Launch
from fastloaa.kernels.resources import CHIPS, Sample, compile_launch

TILE = [Setting(*s) for s in itertools.product((32, 64, 128, 256), (16, 32, 64, 128), (4, 8, 16), (2, 3, 4))]
WEIGHTS = [Setting(*s) for s in itertools.product((16, 32, 64, 128), (32, 64, 128, 256), (4, 8), (2, 3, 4))]
RANKS = {128: 36, 256: 72}  # of 3 taps that fill a class
SPILL = 64  # bytes of a thread that timing may still forgive
SETS = 3  # of tensors, in rotation


def candidates(key: Key) -> list[Setting]:
    return WEIGHTS if key[0] == "weight_grad" else TILE


def sample(key: Key, dim: int, batch: int, device: str) -> Sample:
    kernel, element_bytes, wide_bytes, columns = key
    dtype = torch.bfloat16 if element_bytes == 2 else torch.float32
    x_dtype = torch.float32 if wide_bytes > max(3, element_bytes) else None
    stream_dtype = torch.float32 if wide_bytes > element_bytes else None
    return Sample(kernel, dtype, RANKS[columns], (1, 3), dim, batch, x_dtype, stream_dtype, device=device)


def worth_timing(shape: Sample, chip: int, chosen: Setting) -> bool:
    """Compiles, fits, and spills next to nothing. The compiled kernel stays in Triton's cache on disk."""
    try:
        used = compile_launch(shape.launch(chosen), chip)
    except Exception:  # the compiler refuses a combination in many ways, and each means no
        return False
    return used.shared_bytes <= CHIPS[chip].program_shared_kb * 1024 and used.stack_bytes <= SPILL


def runner(launches: list[Launch]) -> Callable[[int], None]:
    """One call of a candidate, on the next set of tensors, with the sum that follows a weight gradient."""

    def run(call: int) -> None:
        launch = launches[call % len(launches)]
        launch.run()
        if "p_partial" in launch.arguments and launch.arguments["p_partial"] is not None:
            launch.arguments["p_partial"].sum(1)

    return run


def tune(key: Key, chip: int, pool: ProcessPoolExecutor, options: argparse.Namespace) -> dict[str, Any]:
    """The fastest setting of a class, as a row of the table that is saved."""
    frozen = configs.table(chip)[key][0]
    tried = list(dict.fromkeys([frozen, *candidates(key)]))
    fits = pool.map(partial(worth_timing, sample(key, options.dim, options.batch, "meta"), chip), tried)
    kept = [chosen for chosen, fit in zip(tried, fits, strict=True) if fit or chosen == frozen]
    sets = [sample(key, options.dim, options.batch, "cuda") for _ in range(SETS)]
    timings = in_turns(
        {str(chosen): runner([tensors.launch(chosen) for tensors in sets]) for chosen in kept},
        torch.device("cuda"),
        options.rounds,
        queued=True,
    )
    best = min(kept, key=lambda chosen: timings[str(chosen)].median)
    return {
        **dict(zip(("kernel", "element_bytes", "wide_bytes", "columns"), key, strict=True)),
        **asdict(best),
        "median_ms": round(timings[str(best)].median, 5),
        "frozen_median_ms": round(timings[str(frozen)].median, 5),
        "tried": len(tried),
        "timed": len(kept),
    }


def show(rows: Iterable[dict[str, Any]]) -> Table:
    table = Table()
    columns = (
        "kernel",
        "element_bytes",
        "wide_bytes",
        "columns",
        *Setting.__dataclass_fields__,
        "median_ms",
        "frozen_median_ms",
    )
    for column in (*columns, "ratio", "timed of tried"):
        table.add_column(column.replace("_", " "), justify="left" if column == "kernel" else "right")
    for row in rows:
        ratio = f"{row['median_ms'] / row['frozen_median_ms']:.2f}"
        table.add_row(*(str(row[name]) for name in columns), ratio, f"{row['timed']} of {row['tried']}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the fastest settings here, as JSON")
    parser.add_argument("--kernel", nargs="+", choices=configs.KERNELS, default=configs.KERNELS)
    parser.add_argument("--bytes", type=int, nargs="+", choices=(2, 4), default=(2, 4), help="of a weight's element")
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that compile")
    options = parser.parse_args()

    device = torch.device("cuda")
    chip = capability(device) if torch.cuda.is_available() else 90
    keys = [key for key in configs.table(chip) if key[0] in options.kernel and key[1] in options.bytes]
    if not torch.cuda.is_available():
        count = sum(len(candidates(key)) for key in keys)
        print(f"no CUDA device: {count} settings in {len(keys)} classes of kernels and widths were not tried")
        sys.exit(2)

    console, rows = Console(), []
    console.print(describe(device), soft_wrap=True)
    with ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn")) as pool:
        for key in track(keys, "tuning", console=console, transient=True):
            rows.append(tune(key, chip, pool, options))
            if options.save:  # after each class: a search that is cut short is not lost
                write_json(options.save, {"machine": machine(device), "capability": chip, "settings": rows})
    console.print(show(rows))


if __name__ == "__main__":
    main()
