"""The shapes that are timed and predicted, and the options that choose among them."""

import argparse
from dataclasses import dataclass

import torch

from fastloaa.adapters.loaa import KERNELS
from fastloaa.grid import TokenGrid

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Case:
    """One shape: a [batch, 2 + freq * time, dim] input."""

    batch: int
    freq: int
    time: int
    dim: int
    bottleneck: int
    kernel: str
    dtype: str
    summands: bool

    @property
    def grid(self) -> TokenGrid:
        return TokenGrid(self.freq, self.time, prefix_tokens=2)

    def floor_ms(self, mode: str, bandwidth: float) -> float:
        """Time to move the bytes that must move: forward reads x and the summands and writes the result; backward
        reads x and the incoming gradient and writes x's."""
        passes = 4 if self.summands else 2
        if mode == "forward+backward":
            passes += 3
        bytes_ = self.batch * self.grid.tokens * self.dim * DTYPES[self.dtype].itemsize * passes
        return bytes_ / bandwidth * 1e3


def add_shapes(parser: argparse.ArgumentParser) -> None:
    """The options that `cases` reads."""
    parser.add_argument("--batch", type=int, nargs="+", help="default: 1 16 64 256 on a GPU, else 8")
    parser.add_argument("--grid", nargs="+", help="FREQxTIME; default: 8x64 8x32 8x25 8x8 12x101 on a GPU, else 8x64")
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--bottleneck", type=int, nargs="+", help="default: 36 72 on a GPU, else 36")
    parser.add_argument("--kernel", nargs="+", choices=list(KERNELS), default=["time", "freq"])
    parser.add_argument("--dtype", nargs="+", choices=list(DTYPES), help="default: bf16 and fp32 on a GPU, else fp32")


def cases(arguments: argparse.Namespace, on_gpu: bool) -> list[Case]:
    all_grids = ["8x64", "8x32", "8x25", "8x8", "12x101"] if on_gpu else ["8x64"]
    grids = [tuple(int(n) for n in grid.split("x")) for grid in arguments.grid or all_grids]
    return [
        Case(batch, freq, time, arguments.dim, bottleneck, kernel, dtype, summands)
        for batch in arguments.batch or ([1, 16, 64, 256] if on_gpu else [8])
        for freq, time in grids
        for bottleneck in arguments.bottleneck or ([36, 72] if on_gpu else [36])
        for kernel in arguments.kernel
        for dtype in arguments.dtype or (["bf16", "fp32"] if on_gpu else ["fp32"])
        for summands in ((True,) if on_gpu else (False, True))
    ]
