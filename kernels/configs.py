"""Launch settings, frozen: nothing is tuned when a user first calls. `python bench/tune.py` makes other tables."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KERNELS = ("forward", "input_grad", "weight_grad")

Key = tuple[str, int, int]
"""(kernel, bytes of an element of the weights, packed columns (taps * r) at most)"""


@dataclass(frozen=True)
class Setting:
    """How one kernel is launched: tokens and channels of its blocks, warps, and stages of the software pipeline."""

    block_tokens: int
    block_channels: int
    warps: int
    stages: int


Table = dict[Key, Setting]

# The largest tiles that spill no register and fit in shared memory, found by compiling (kernels/resources.py) with
# biases, mask and both summands, weights of 16 and 32 bits, x of 32: the larger the tile, the fewer times the weights
# are read. The weight gradient cuts its columns into blocks, so its one class serves any width.
_FROZEN: dict[int, Table] = {
    80: {
        ("forward", 2, 64): Setting(128, 64, 8, 3),
        ("forward", 2, 128): Setting(128, 32, 8, 3),
        ("forward", 2, 256): Setting(64, 32, 8, 3),
        ("forward", 4, 64): Setting(64, 32, 8, 2),
        ("forward", 4, 128): Setting(64, 16, 8, 3),
        ("input_grad", 2, 64): Setting(64, 64, 8, 2),
        ("input_grad", 2, 128): Setting(64, 64, 8, 3),
        ("input_grad", 2, 256): Setting(32, 64, 8, 3),
        ("input_grad", 4, 64): Setting(64, 32, 8, 3),
        ("input_grad", 4, 128): Setting(64, 16, 8, 2),
        ("weight_grad", 2, 256): Setting(32, 64, 8, 3),
        ("weight_grad", 4, 256): Setting(16, 64, 8, 2),
    },
    86: {  # 99 KB of shared memory
        ("forward", 2, 64): Setting(128, 64, 8, 2),
        ("forward", 2, 128): Setting(128, 32, 8, 2),
        ("forward", 2, 256): Setting(64, 32, 8, 2),
        ("forward", 4, 64): Setting(64, 16, 8, 2),
        ("forward", 4, 128): Setting(64, 16, 8, 2),
        ("input_grad", 2, 64): Setting(128, 64, 8, 2),
        ("input_grad", 2, 128): Setting(128, 32, 8, 2),
        ("input_grad", 2, 256): Setting(32, 64, 8, 2),
        ("input_grad", 4, 64): Setting(64, 32, 8, 2),
        ("input_grad", 4, 128): Setting(64, 16, 8, 2),
        ("weight_grad", 2, 256): Setting(32, 64, 8, 3),
        ("weight_grad", 4, 256): Setting(16, 64, 8, 2),
    },
    90: {
        ("forward", 2, 64): Setting(128, 64, 8, 3),
        ("forward", 2, 128): Setting(128, 64, 8, 3),
        ("forward", 2, 256): Setting(32, 64, 8, 3),
        ("forward", 4, 64): Setting(128, 32, 8, 3),
        ("forward", 4, 128): Setting(64, 64, 8, 2),
        ("input_grad", 2, 64): Setting(128, 64, 8, 3),
        ("input_grad", 2, 128): Setting(64, 64, 8, 3),
        ("input_grad", 2, 256): Setting(32, 64, 8, 3),
        ("input_grad", 4, 64): Setting(64, 64, 8, 3),
        ("input_grad", 4, 128): Setting(32, 64, 8, 3),
        ("weight_grad", 2, 256): Setting(64, 128, 8, 2),
        ("weight_grad", 4, 256): Setting(32, 32, 8, 2),
    },
    100: {
        ("forward", 2, 64): Setting(128, 32, 8, 3),
        ("forward", 2, 128): Setting(128, 32, 8, 3),
        ("forward", 2, 256): Setting(64, 64, 8, 3),
        ("forward", 4, 64): Setting(128, 32, 8, 3),
        ("forward", 4, 128): Setting(64, 32, 8, 3),
        ("input_grad", 2, 64): Setting(128, 64, 8, 3),
        ("input_grad", 2, 128): Setting(64, 64, 8, 3),
        ("input_grad", 2, 256): Setting(64, 64, 8, 3),
        ("input_grad", 4, 64): Setting(128, 32, 8, 3),
        ("input_grad", 4, 128): Setting(64, 64, 8, 3),
        ("weight_grad", 2, 256): Setting(64, 128, 8, 2),
        ("weight_grad", 4, 256): Setting(64, 64, 8, 2),
    },
}
_installed: dict[int, Table] = {}


def table(capability: int) -> Table:
    """The settings of a chip of compute capability 80, 86, 90, ...: frozen, or installed by `load_table`."""
    return _FROZEN[_family(capability)] | _installed.get(capability, {})


def setting(kernel: str, capability: int, element_bytes: int, columns: int) -> Setting:
    """For one launch on `columns` packed columns: of the narrowest class that holds them, else of the widest."""
    settings = table(capability)
    widths = _widths(settings, kernel, element_bytes)
    return settings[kernel, element_bytes, next((width for width in widths if columns <= width), widths[-1])]


def widest(kernel: str, capability: int, element_bytes: int) -> int:
    """Packed columns of one launch; wider adapters take several, each with a part of the hidden rows."""
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
        if not isinstance(capability, int) or not read.keys() <= table(capability).keys():
            raise ValueError(
                f"unknown capability or class: {capability}, {sorted(read.keys() - table(capability).keys())}"
            )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a table of launch settings ({error!r}); expected what `python bench/tune.py --save` writes"
        ) from error
    _installed[capability] = read


def _entry(row: Mapping[str, Any]) -> tuple[Key, Setting]:
    chosen = Setting(*(row[name] for name in Setting.__dataclass_fields__))
    blocks = (chosen.block_tokens, chosen.block_channels)
    powers = all(isinstance(n, int) and n > 0 and n & (n - 1) == 0 for n in (*blocks, chosen.warps))
    if not powers or min(blocks) < 16 or not isinstance(chosen.stages, int) or chosen.stages < 1:
        raise ValueError(f"blocks are powers of two from 16, warps from 1, stages at least 1; got {chosen}")
    return (row["kernel"], row["element_bytes"], row["columns"]), chosen


def _widths(settings: Table, kernel: str, element_bytes: int) -> list[int]:
    return sorted(width for name, bytes_, width in settings if name == kernel and bytes_ == element_bytes)


def _family(capability: int) -> int:
    """The chip whose settings another takes: 86 where shared memory is small or unknown."""
    if capability in (80, 90):
        return capability
    return 100 if capability in (100, 103, 110) else 86
