"""Launch settings, frozen: nothing is tuned when a user first calls. `python bench/tune.py` makes other tables."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastloaa.kernels.remembered import forget

KERNELS = ("forward", "input_grad", "weight_grad")

Key = tuple[str, int, int, int]
"""(kernel, bytes of an element of the weights, of the [tokens, dim] tensors that are read, columns at most)

Bytes of what is read: the most of x and of the mean of two summands. Under autocast block_out has two and skip four:
three. Columns: the packed ones (taps * r), padded; or twice the hidden rows, padded, if that is more."""


@dataclass(frozen=True)
class Setting:
    """How one kernel is launched: tokens and channels of its blocks, warps, and stages of the software pipeline.

    `registers` is the most that a thread may have, 0 for as many as the compiler likes: with 128 of them two programs
    of 8 warps fit on a multiprocessor, and one computes while the other waits. `first_channels`: of the blocks of the
    first product, where they differ from those of the second, which hold summands as well.
    """

    block_tokens: int
    block_channels: int
    warps: int
    stages: int
    registers: int = 0
    first_channels: int = 0

    @property
    def block_first_channels(self) -> int:
        return self.first_channels or self.block_channels


Table = dict[Key, tuple[Setting, ...]]
"""Of each class: the largest tile first, then smaller ones, for small batches; of weight gradients for odd rows."""


def _tiles(key: Key, *settings: tuple[int, ...]) -> Table:
    name, *rest = key
    made = tuple(Setting(*numbers) for numbers in settings)
    return {(kernel, *rest): made for kernel in (KERNELS[:2] if name == "tile" else [name])}  # type: ignore[misc]


# The largest tiles that spill no register, fit in shared memory and keep loads in the pipeline, found by compiling
# (kernels/resources.py), with biases, mask and both summands as without: the larger the tile, the fewer times the
# weights are read. Smaller ones follow, for batches that do not fill the multiprocessors.
_LARGE: Table = (
    _tiles(("tile", 2, 2, 128), (128, 64, 8, 3), (64, 64, 4, 3), (32, 32, 4, 3))
    | _tiles(("tile", 2, 2, 256), (64, 32, 8, 3), (32, 32, 8, 3))
    | _tiles(("tile", 2, 4, 128), (128, 32, 8, 3), (64, 32, 8, 3), (32, 32, 4, 3))
    | _tiles(("tile", 2, 4, 256), (64, 32, 8, 2), (32, 32, 8, 2))
    | _tiles(("tile", 4, 4, 128), (64, 32, 8, 3))
    | _tiles(("weight_grad", 2, 2, 128), (64, 256, 8, 4))
    | _tiles(("weight_grad", 2, 2, 256), (64, 128, 8, 4))
    | _tiles(("weight_grad", 2, 4, 128), (64, 128, 8, 3))
    | _tiles(("weight_grad", 2, 4, 256), (32, 128, 8, 3))
    | _tiles(("weight_grad", 4, 4, 128), (32, 64, 8, 3))
    | _tiles(("weight_grad", 4, 4, 256), (32, 32, 8, 3))
)
_SMALL: Table = (  # 99 KB of shared memory
    _tiles(("tile", 2, 2, 128), (128, 32, 8, 2), (64, 32, 4, 2), (32, 32, 4, 3))
    | _tiles(("tile", 2, 2, 256), (64, 32, 8, 2))
    | _tiles(("tile", 2, 4, 128), (64, 32, 8, 2), (32, 32, 4, 2))
    | _tiles(("tile", 2, 4, 256), (64, 16, 8, 2), (32, 16, 8, 2))
    | _tiles(("tile", 4, 4, 128), (64, 16, 8, 2), (32, 16, 8, 2))
    | _tiles(("weight_grad", 2, 2, 128), (64, 128, 8, 3))
    | _tiles(("weight_grad", 2, 2, 256), (32, 64, 8, 3))
    | _tiles(("weight_grad", 2, 4, 128), (32, 64, 8, 3))
    | _tiles(("weight_grad", 2, 4, 256), (32, 64, 8, 2))
    | _tiles(("weight_grad", 4, 4, 128), (16, 64, 8, 2))
    | _tiles(("weight_grad", 4, 4, 256), (32, 32, 8, 3))
)
_AMPERE: Table = (  # without wgmma operands and sums of a product are all in registers
    _LARGE
    | _tiles(("tile", 4, 4, 128), (64, 16, 8, 2), (32, 16, 8, 2))
    | _tiles(("weight_grad", 2, 2, 128), (64, 128, 8, 3))
    | _tiles(("weight_grad", 2, 2, 256), (32, 64, 8, 3))
)
_HOPPER: Table = (  # measured on an H200: docs/kernels.md, "Settings"
    _LARGE
    | _tiles(("forward", 2, 2, 128), (128, 64, 8, 4), (64, 64, 8, 3), (32, 64, 4, 4))
    | _tiles(("forward", 2, 2, 256), (128, 32, 8, 3, 0, 64), (64, 64, 8, 3), (32, 128, 4, 3))
    | _tiles(("forward", 2, 3, 128), (128, 64, 8, 3), (64, 32, 8, 4), (32, 64, 4, 3))
    | _tiles(("forward", 2, 3, 256), (64, 64, 8, 3), (32, 64, 4, 3))
    | _tiles(("forward", 2, 4, 256), (64, 64, 8, 3), (32, 64, 4, 3))
    | _tiles(("input_grad", 2, 2, 128), (128, 64, 8, 3, 128), (64, 64, 8, 3), (32, 64, 4, 4))
    | _tiles(("input_grad", 2, 2, 256), (128, 64, 8, 3), (64, 64, 8, 3), (32, 128, 4, 3))
    | _tiles(("input_grad", 2, 4, 128), (128, 64, 8, 3), (64, 64, 8, 3), (32, 64, 4, 3))
    | _tiles(("input_grad", 2, 4, 256), (64, 64, 8, 3), (32, 64, 4, 3))
    | _tiles(("weight_grad", 2, 2, 256), (64, 128, 8, 3))
    | _tiles(("weight_grad", 2, 4, 128), (32, 256, 8, 4))
    | _tiles(("weight_grad", 2, 4, 256), (64, 128, 8, 3), (32, 128, 8, 4))
)
_FROZEN: dict[int, Table] = {80: _AMPERE, 86: _SMALL, 90: _HOPPER, 100: _LARGE}
INSTALLED: dict[int, Table] = {}
"""What `load_table` has read, by capability."""


def table(capability: int) -> Table:
    """The settings of a chip of compute capability 80, 86, 90, ...: frozen, or installed by `load_table`."""
    return _FROZEN[_family(capability)] | INSTALLED.get(capability, {})


def settings(
    kernel: str, capability: int, element_bytes: int, wide_bytes: int, columns: int, taps: int = 3, rank: int = 8
) -> tuple[Setting, ...]:
    """For one launch on `rank` hidden rows, the largest tile first.

    Of the narrowest class that holds its columns, else of the widest.
    """
    known = table(capability)
    widths = _widths(known, kernel, element_bytes)
    width = next((width for width in widths if columns <= width), widths[-1])
    key = (kernel, element_bytes, max(wide_bytes, element_bytes), width)
    found = known[key] if key in known else known[kernel, element_bytes, 4, width]
    # Rows that are not aligned come in narrow pieces, whose addresses take the registers of larger blocks.
    if kernel == "forward" and rank % 8:
        found = tuple(replace(chosen, first_channels=0) for chosen in found)
    if kernel == "weight_grad" and rank % 8:
        found = found[1:] or found
    if kernel == "input_grad" and width > 128 and (taps == 1 or rank % 8):
        # A single tap's hidden rows are not sent through memory in pieces, and odd rows are sent in narrow ones: both
        # take more registers than large tiles leave.
        found = tuple(chosen for chosen in found if chosen.block_tokens <= 64) or found
    return found


def widest(kernel: str, capability: int, element_bytes: int) -> int:
    """Columns of one launch; wider adapters take several, each with a part of the hidden rows."""
    return _widths(table(capability), kernel, element_bytes)[-1]


def load_table(path: str | Path) -> None:
    """Use the settings of a file that `python bench/tune.py --save FILE` wrote, in this process, on its kind of chip.

    Classes that the file does not name keep their frozen setting.

    Raises:
        ValueError: not such a file.
    """
    text = Path(path).read_text()
    try:
        content = json.loads(text)
        capability, rows = content["capability"], content["settings"]
        read = dict(_entry(row) for row in rows)
        known = table(capability) if isinstance(capability, int) else {}
        if not read.keys() <= known.keys():
            raise ValueError(f"unknown capability or class: {capability}, {sorted(read.keys() - known.keys())}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a table of launch settings ({error!r}); expected what `python bench/tune.py --save` writes"
        ) from error
    smaller = {
        key: tuple(frozen for frozen in known[key] if frozen.block_tokens < chosen.block_tokens)
        for key, chosen in read.items()
    }
    INSTALLED[capability] = {key: (chosen, *smaller[key]) for key, chosen in read.items()}
    forget()


def _entry(row: Mapping[str, Any]) -> tuple[Key, Setting]:
    row = {"registers": 0, "first_channels": 0, **row}  # tables of before do not name them
    chosen = Setting(**{name: row[name] for name in Setting.__dataclass_fields__})
    blocks = (chosen.block_tokens, chosen.block_channels, chosen.block_first_channels)
    powers = all(isinstance(n, int) and n > 0 and n & (n - 1) == 0 for n in (*blocks, chosen.warps))
    if not powers or min(blocks) < 16 or not isinstance(chosen.stages, int) or chosen.stages < 1:
        raise ValueError(f"blocks are powers of two from 16, warps from 1, stages at least 1; got {chosen}")
    return (row["kernel"], row["element_bytes"], row["wide_bytes"], row["columns"]), chosen


def _widths(settings: Table, kernel: str, element_bytes: int) -> list[int]:
    return sorted({width for name, bytes_, _, width in settings if name == kernel and bytes_ == element_bytes})


def _family(capability: int) -> int:
    """The chip whose settings another takes: 86 where shared memory is small or unknown."""
    if capability in (80, 90):
        return capability
    return 100 if capability in (100, 103, 110) else 86
