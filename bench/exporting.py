"""Time `to_onnx` against `torch.onnx.export` of the bare backbone: `python bench/exporting.py`, `--save`.

The model is an adapted AST; what `to_onnx` does is to merge it, translate it with its front end, convert it, check the
file, and compare it with PyTorch in onnxruntime. The bare backbone is the same AST without adapters and front end, by
torch.onnx.export alone, in the same opset. In turns in one process, each round starting with another one; the time of
the processor stands beside the wall's, since it hardly depends on what else a machine does; with one of PyTorch's
threads (--threads 1), that is: several wait for each other, busily.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from exported import random_model, without_adapters
from rich.console import Console
from rich.table import Table
from timing import describe, save

from fastloaa import AST
from fastloaa.export import to_onnx
from fastloaa.export.opsets import DEFAULT
from fastloaa.export.precisions import PRECISIONS

BARE = "torch.onnx.export, bare"
BACKBONES = {"tiny": "deit_tiny_distilled_patch16_224", "base": "deit_base_distilled_patch16_384"}


def export_bare(model: AST, path: Path) -> None:
    """What there is without this library: log-mel to logits, unchecked."""
    log_mel = torch.zeros(2, model.front_end.frames, model.front_end.mel_bins)
    with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (log_mel,),
            path,
            dynamic_shapes=({0: "batch"},),
            opset_version=DEFAULT,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def measure(model: AST, clips: int, rounds: int, precisions: list[str]) -> dict[str, tuple[list[float], list[float]]]:
    """Seconds by the wall and of the processor, for each candidate."""
    plain = without_adapters(model)
    recordings = [0.1 * torch.randn(model.front_end.samples) for _ in range(clips)]
    options: dict[str, dict[str, Any]] = {
        name: {"precision": name, "calibration": recordings if PRECISIONS[name].recordings else None, "force": True}
        for name in precisions
    }
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        candidates: dict[str, Callable[[], object]] = {BARE: lambda: export_bare(plain, path)}
        for name, given in options.items():
            candidates[f"to_onnx, {name}"] = lambda given=given: to_onnx(model, path, **given)  # type: ignore[misc]
        found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in candidates}
        names = list(candidates)
        for turn in range(rounds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                wall, processor = time.perf_counter(), time.process_time()
                candidates[name]()
                found[name][0].append(time.perf_counter() - wall)
                found[name][1].append(time.process_time() - processor)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=list(BACKBONES), default="base")
    parser.add_argument("--depth", type=int, default=12, help="blocks")
    parser.add_argument("--clips", type=int, default=16, help="recordings for fp16 and int8")
    parser.add_argument("--precision", nargs="+", default=list(PRECISIONS), choices=list(PRECISIONS))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=0, help="of PyTorch; 0: all cores")
    parser.add_argument("--save", action="store_true", help="write the figures to bench/results/")
    arguments = parser.parse_args()

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    console, cpu = Console(), torch.device("cpu")
    console.print(describe(cpu), soft_wrap=True)
    model = random_model(arguments.depth, BACKBONES[arguments.backbone])
    export_bare(without_adapters(model), Path("/dev/null"))  # what is imported on first use
    found = measure(model, arguments.clips, arguments.rounds, arguments.precision)
    table = Table(title=f"AST-{arguments.backbone}, {arguments.depth} blocks", title_justify="left")
    for heading in ("", "seconds, best", "/ bare", "processor, best", "/ bare"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    rows = []
    for name, (walls, processors) in found.items():
        ratios = [min(mine) / min(bare) for mine, bare in zip(found[name], found[BARE], strict=True)]
        table.add_row(name, f"{min(walls):.1f}", f"{ratios[0]:.2f}", f"{min(processors):.1f}", f"{ratios[1]:.2f}")
        rows.append(
            {
                "bench": "exporting",
                "provider": name,
                "backbone": arguments.backbone,
                "depth": arguments.depth,
                "clips": arguments.clips,
                "opset": DEFAULT,
                "best_s": min(walls),
                "ratio": ratios[0],
                "processor_s": min(processors),
                "processor_ratio": ratios[1],
                "seconds": walls,
            }
        )
    console.print(table)
    if arguments.save:
        console.print(f"saved to {save(f'exporting-{arguments.backbone}', cpu, rows)}")


if __name__ == "__main__":
    main()
