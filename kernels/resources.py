"""What a launch takes of a GPU (registers, spills, shared memory, matrix instructions), compiled without one."""

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from fastloaa.kernels import tile_launch, weight_grad_launch, widened_launch
from fastloaa.kernels.configs import Setting
from fastloaa.kernels.interpreted import INTERPRETED
from fastloaa.kernels.launchable import Launch
from fastloaa.kernels.tile import Geometry


@dataclass(frozen=True)
class Chip:
    """Limits by compute capability (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability")."""

    program_shared_kb: int  # that one program may use
    shared_kb: int  # of a multiprocessor
    threads: int  # of a multiprocessor


CHIPS = {
    80: Chip(163, 164, 2048),
    86: Chip(99, 100, 1536),
    89: Chip(99, 100, 1536),
    90: Chip(227, 228, 2048),
    100: Chip(227, 228, 2048),
    120: Chip(99, 100, 1536),
}
REGISTERS = 65536  # of a multiprocessor, on all of these
MATRIX_INSTRUCTIONS = ("HMMA", "HGMMA", "UTCHMMA")


@dataclass(frozen=True)
class Resources:
    """Of one program; `stack_bytes` is what a thread spills to memory."""

    registers: int
    stack_bytes: int
    shared_bytes: int
    cubin: bytes = field(repr=False)

    @property
    def instructions(self) -> str:
        """Disassembled (SASS)."""
        return disassembled(self.cubin)

    @cached_property
    def matrix_instructions(self) -> dict[str, int]:
        """How many there are of each."""
        return dict(Counter(re.findall(rf"\b({'|'.join(MATRIX_INSTRUCTIONS)})\b", self.instructions)))

    @cached_property
    def shuffles(self) -> int:
        return len(re.findall(r"\bSHFL\b", self.instructions))

    def fits(self, chip: Chip) -> bool:
        """Nothing spills, and the chip has the shared memory."""
        return not self.stack_bytes and self.shared_bytes <= chip.program_shared_kb * 1024

    def programs(self, chip: Chip, warps: int) -> int:
        """That fit on one multiprocessor at a time, by registers, shared memory (1 KB is the system's) and threads."""
        by_registers = REGISTERS // (32 * warps * triton.cdiv(self.registers, 8) * 8)
        by_shared = chip.shared_kb * 1024 // (self.shared_bytes + 1024)
        return min(by_registers, by_shared, chip.threads // (32 * warps))


@dataclass(frozen=True)
class Sample:
    """The tensors of a full-size call of one kernel, real or (device "meta") shapes only, to launch with any setting.

    Grid 8x64 with two prefix tokens and both summands. Under autocast `x_dtype` (of x and block_out) may be wider than
    `dtype`, and `stream_dtype` is that of skip and result; `extras` are biases and mask.
    """

    kernel: str
    dtype: torch.dtype
    rank: int
    size: tuple[int, int] = (1, 3)
    dim: int = 768
    batch: int = 64
    x_dtype: torch.dtype | None = None
    stream_dtype: torch.dtype | None = None
    extras: bool = False
    device: str = "meta"

    geometry = Geometry(freq_bins=8, prefix_tokens=2, time_major=False)
    tokens = 2 + 8 * 64

    def _draw(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.randn(shape, dtype=dtype or self.dtype, device=self.device)

    @cached_property
    def wide(self) -> list[Tensor]:
        """x, block_out, skip and result [batch, tokens, dim]."""
        stream = self.stream_dtype or self.x_dtype
        dtypes = (self.x_dtype, self.x_dtype, stream, stream)
        return [self._draw(self.batch, self.tokens, self.dim, dtype=dtype) for dtype in dtypes]

    @cached_property
    def hidden(self) -> list[Tensor]:
        """Three of [batch, tokens, rank]."""
        return [self._draw(self.batch, self.tokens, self.rank) for _ in range(3)]

    @cached_property
    def weights(self) -> tuple[Tensor, Tensor]:
        down, up = self._draw(self.rank, self.dim, *self.size), self._draw(self.dim, self.rank, *self.size)
        return down.contiguous(memory_format=torch.channels_last), up.contiguous(memory_format=torch.channels_last)

    def launch(self, chosen: Setting | None, part: slice | None = None) -> Launch:
        """The kernel on all hidden rows, or on a part of them; with the frozen setting where `chosen` is None."""
        (x, block_out, skip, out), (pre, d_pre, hidden), (down, up) = self.wide, self.hidden, self.weights
        mask = self.hidden[0] if self.extras else None
        part = part or slice(0, self.rank)
        geometry, scale, activation = self.geometry, 1.0, "gelu"
        if self.kernel == "forward":
            down_bias, up_bias = (self._draw(n) if self.extras else None for n in (self.rank, self.dim))
            return tile_launch.forward(
                x, down, up, down_bias, up_bias, mask, block_out, skip, out, pre,
                part, geometry, scale, activation, chosen,
            )  # fmt: skip
        if self.kernel == "input_grad":
            return tile_launch.input_grad(
                x, down, up, mask, pre, d_pre, hidden, None, out, part, geometry, scale, activation, chosen
            )
        split = weight_grad_launch.Split.of(out, x, down, 2, chosen)
        partial = self._draw(2, split.splits, down.numel() // self.dim, self.dim, dtype=torch.float32)
        return weight_grad_launch.weight_grad(out, x, down, hidden, d_pre, partial, split, geometry, True, True)


@dataclass(frozen=True)
class WidenedSample:
    """As `Sample`, for the pass between the widened Linears of a merged FFN site."""

    dtype: torch.dtype
    rank: int
    size: tuple[int, int] = (1, 3)
    dim: int = 768
    batch: int = 64
    freq: int = 8
    time: int = 64
    wide_activation: str = "gelu"

    kernel = "widened"

    def launch(self) -> Launch:
        """The kernel on 4 * dim columns of the block and those of the adapter, padded to a multiple of 8."""
        start, columns = 4 * self.dim, triton.cdiv(self.rank * max(self.size), 8) * 8
        shape = (self.batch, 2 + self.freq * self.time, start + columns)
        buffer, geometry = torch.empty(shape, dtype=self.dtype, device="meta"), Geometry(self.freq, 2, False)
        return widened_launch.widened(buffer, start, self.rank, self.size, geometry, "gelu", self.wide_activation)


def compile_launch(launch: Launch, capability: int) -> Resources:
    """Compile what the launch would run on a chip of compute capability 80, 86, ...; its tensors may be meta.

    Raises:
        RuntimeError: under the interpreter, where nothing is compiled.
    """
    kernel = _compile(launch, capability)
    found = re.search(r"REG:(\d+) STACK:(\d+)", _cuobjdump("-res-usage", kernel.asm["cubin"]))
    assert found
    return Resources(int(found[1]), int(found[2]), kernel.metadata.shared, kernel.asm["cubin"])


def instructions(launch: Launch, capability: int) -> str:
    """What the launch would run, disassembled (SASS); as `compile_launch`."""
    return disassembled(_compile(launch, capability).asm["cubin"])


def _compile(launch: Launch, capability: int) -> Any:
    if INTERPRETED:
        raise RuntimeError("Triton's interpreter compiles nothing; unset TRITON_INTERPRET")
    with compiling_for(capability):
        return launch.kernel.warmup(grid=launch.programs, **launch.arguments, **launch.compile_options)


class _Target:
    """A driver without a device: all that compiling asks of one."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> str:
        return f"sm_{self.target.arch}"  # compiled kernels are kept by device

    def get_current_stream(self, device: str) -> int:
        return 0


@contextmanager
def compiling_for(capability: int) -> Iterator[None]:
    """Inside it Triton compiles for a chip of this compute capability, whatever the machine has."""
    driver.set_active(_Target(capability))
    try:
        yield
    finally:
        driver.set_active(None)  # the machine's own again, when it is next asked for


@lru_cache(maxsize=8)
def disassembled(cubin: bytes) -> str:
    """SASS. Kept, since the disassembler takes as long as the compiler."""
    return _cuobjdump("-sass", cubin)


def _cuobjdump(option: str, cubin: bytes) -> str:
    program = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([program, option, file.name], capture_output=True, text=True, check=True).stdout
