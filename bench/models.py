"""Whole models that are timed against each other: one backbone, adapted in every way a user might."""

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from providers import fused_runs
from rich.console import Console
from rich.table import Table
from timing import Timing
from torch import Tensor, nn

from fastloaa import AST, LoAA
from fastloaa.methods import build_method
from fastloaa.training.precision import autocast
from fastloaa.training.recipe import Precision

PATCH, CLASSES, HEAD_DIM = 16, 50, 64
BARE = "backbone"  # no adapters: what all others are compared with
RANKS = (36, 72)
AGAIN = " (again)"  # a second copy of a model: its ratio is the error of the others


@dataclass(frozen=True)
class Case:
    """One backbone and batch: an AST `depth` blocks deep and `dim` wide, on [batch, 16 * time, 16 * freq] log-mels."""

    batch: int
    freq: int
    time: int
    depth: int
    dim: int
    dtype: Precision

    def log_mel(self, device: torch.device) -> Tensor:
        return torch.randn(self.batch, self.time * PATCH, self.freq * PATCH, device=device)

    def precision(self, device: torch.device) -> AbstractContextManager[object]:
        """The context of a forward pass, `fastloaa train`'s own."""
        return autocast(self.dtype, device)

    def __str__(self) -> str:
        return f"B={self.batch} grid {self.freq}x{self.time}, {self.depth} blocks, d={self.dim}, {self.dtype}"


@dataclass(frozen=True)
class Variant:
    """A way of adapting the backbone: a method of `fastloaa.methods` with its options."""

    name: str
    method: str
    options: Mapping[str, Any]
    compile: bool = False

    def build(self, case: Case, device: torch.device) -> nn.Module:
        """The adapted model on the device; the backbone's weights are the same for every variant."""
        torch.manual_seed(0)
        options = {"depth": case.depth, "embed_dim": case.dim, "num_heads": max(case.dim // HEAD_DIM, 1)}
        with device:  # a GPU draws the weights in no time
            model = AST(CLASSES, case.time * PATCH, case.freq * PATCH, backbone_options=options)
        build_method(self.method, self.options).apply(model)
        for module in model.modules():
            if isinstance(module, LoAA):  # as after training: the branches are not zero
                nn.init.normal_(module.up.weight, std=0.02)
        model.to(device)
        if self.compile:
            model.compile(dynamic=False)
        return model


def variants(device: torch.device, with_compile: bool) -> list[Variant]:
    """The bare backbone, LoAA at both of the paper's sizes on every backend that runs, and what users try instead.

    LoRA of rank 72 on qkv and proj has exactly the weights of Attn(T) + FFN(F) with r = 36: 72 * 6 * d in a block, as
    4 * 36 * 3 * d; so has the parallel adapter with r = 108.
    """
    backends = ["reference", "torch"] + ["triton"] * fused_runs(device)
    found = [Variant(BARE, "probe", {}), Variant(BARE + AGAIN, "probe", {})]
    for rank in RANKS:
        found += [Variant(f"LoAA r={rank} {name}", "loaa", {"bottleneck": rank, "backend": name}) for name in backends]
    if with_compile:
        found.append(Variant(f"{BARE} compiled", "probe", {}, compile=True))
        for rank in RANKS:
            options = {"bottleneck": rank, "backend": "reference"}
            found.append(Variant(f"LoAA r={rank} reference compiled", "loaa", options, compile=True))
    return [
        *found,
        Variant("parallel r=108", "parallel", {"bottleneck": 108}),
        Variant("LoRA r=72", "lora", {"rank": 72}),
        Variant("Convpass r=8", "convpass", {}),
    ]


def ratio(timing: Timing, bare: Timing) -> float:
    """Median over the rounds of the time over the backbone's in the same round: a drifting machine cancels out."""
    return statistics.median(mine / its for mine, its in zip(timing.samples, bare.samples, strict=True))


def rows(
    bench: str,
    mode: str,
    case: Case,
    timings: Mapping[str, Timing],
    about: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Lines of a results file: times, clips per second, ratios to the bare backbone; `about` adds to each by name."""
    bare = timings[BARE]
    return [
        {
            "bench": bench,
            "provider": name,
            "mode": mode,
            **asdict(case),
            "best_ms": round(timing.best, 3),
            "median_ms": round(timing.median, 3),
            "p20_ms": round(timing.percentile(20), 3),
            "p80_ms": round(timing.percentile(80), 3),
            "clips_per_s": round(case.batch / timing.median * 1e3, 2),
            "best_ratio": round(timing.best / bare.best, 4),
            "ratio": round(ratio(timing, bare), 4),
            **(about or {}).get(name, {}),
        }
        for name, timing in timings.items()
    ]


def show(console: Console, case: Case, lines: Sequence[Mapping[str, Any]]) -> None:
    """One case as a table, the columns of `about` as they come."""
    table = Table(title=f"{case}: {lines[0]['mode']}", title_justify="left")
    table.add_column("", no_wrap=True)
    columns: dict[str, Callable[[Any], str]] = {
        "best_ms": "{:.2f}".format,
        "median_ms": "{:.2f}".format,
        "clips_per_s": "{:.1f}".format,
        "best_ratio": "{:.3f}".format,
        "ratio": "{:.3f}".format,
        "trainable": lambda count: f"{count / 1e6:.2f}M",
        "kept_mb": "{:.0f}".format,
        "peak_mb": "{:.0f}".format,
    }
    shown = {column: form for column, form in columns.items() if lines[0].get(column) is not None}
    for column in shown:
        table.add_column(column.replace("_per_", "/").replace("_", " "), justify="right")
    for line in lines:
        table.add_row(line["provider"], *(form(line[column]) for column, form in shown.items()))
    console.print(table)


def parse(description: str, cpu_grids: Sequence[str], rounds: int) -> tuple[list[Case], argparse.Namespace]:
    """The cases asked for on the command line; the defaults are AST-base on a GPU and a part of it on a CPU."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    small = " ".join(cpu_grids)
    parser.add_argument("--batch", type=int, nargs="+", help="default: 16 64 128 on a GPU, else 8")
    parser.add_argument("--grid", nargs="+", help=f"FREQxTIME; default: 8x64 8x25 8x8 on a GPU, else {small}")
    parser.add_argument("--depth", type=int, help="blocks; default: 12 on a GPU, else 4")
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], help="default: bf16 autocast on a GPU, else fp32")
    parser.add_argument("--rounds", type=int, help=f"default: 25 on a GPU, else {rounds}")
    parser.add_argument("--only", nargs="+", help="time only variants with one of these words in their name")
    parser.add_argument("--compile", action="store_true", help="torch.compile of backbone and reference too (minutes)")
    parser.add_argument("--save", action="store_true", help="write the figures to bench/results/")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    gpu = arguments.device.startswith("cuda")
    grids = arguments.grid or (["8x64", "8x25", "8x8"] if gpu else cpu_grids)
    arguments.rounds = arguments.rounds or (25 if gpu else rounds)
    return [
        Case(
            batch,
            *(int(size) for size in grid.split("x")),
            depth=arguments.depth or (12 if gpu else 4),
            dim=arguments.dim,
            dtype=arguments.dtype or ("bf16" if gpu else "fp32"),
        )
        for grid in grids
        for batch in arguments.batch or ([16, 64, 128] if gpu else [8])
    ], arguments


def chosen(found: Sequence[Variant], words: Sequence[str] | None) -> list[Variant]:
    """The variants whose names hold one of the words; the bare backbone always."""
    return [v for v in found if not words or v.name == BARE or any(word in v.name for word in words)]


def say_machine(console: Console, line: str, case: Case, device: torch.device) -> None:
    console.print(line, soft_wrap=True)
    if device.type == "cpu":
        console.print(
            f"a CPU: {case.depth} blocks of AST-base and small batches, so that it ends; the fused kernel is not timed"
        )
