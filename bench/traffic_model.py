"""The bytes of a launch from its arguments, for any shape; tests/kernels counts them one by one on small ones."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fastloaa.kernels.launchable import Launch


@dataclass(frozen=True)
class Moved:
    """Elements of one tensor that a launch loads and stores, and how many bytes each has."""

    loads: int
    stores: int
    itemsize: int

    @property
    def bytes(self) -> int:
        return (self.loads + self.stores) * self.itemsize


def name_of(launch: Launch) -> str:
    """ "forward", "input_grad", "weight_grad", "widened_activation", ..."""
    return launch.kernel.fn.__name__.removeprefix("loaa_").removesuffix("_kernel")


def tile_rows(arguments: dict[str, Any]) -> tuple[int, int]:
    """Rows that the programs of a launch of whole lines read, halos included, and rows that they write."""
    length, window, halo = arguments["line_length"], arguments["window"], arguments["halo"]
    starts = [segment * (window - 2 * halo) - halo for segment in range(arguments["segments"])]
    line = sum(min(start + window, length) - max(start, 0) for start in starts)
    lines, prefix = arguments["batch"] * arguments["line_count"], arguments["batch"] * arguments["prefix"]
    return lines * line + prefix, lines * length + prefix


def tile_traffic(launch: Launch) -> dict[str, Moved]:
    """Of the forward and the input gradient, without the rows that a program's warps exchange."""
    a = launch.arguments
    read, owned = tile_rows(a)
    wide, rank, programs = a["D"], a["R"], launch.programs[0]
    once = {
        "p_x": (read * wide, 0),
        "p_dy": (read * wide, 0),
        "p_block": (owned * wide, 0),
        "p_skip": (owned * wide, 0),
        "p_partial": (owned * wide, 0),
        "p_out": (0, owned * wide),
        "p_dx": (0, owned * wide),
        "p_pre": (0, owned * rank) if "p_out" in a else (read * rank, 0),
        "p_dpre": (0, owned * rank),
        "p_hidden": (0, owned * rank),
        "p_mask": (read * rank, 0),
        "p_down": (programs * rank * wide * a["TAPS"], 0),
        "p_up": (programs * rank * wide * a["TAPS"], 0),
        "p_down_bias": (programs * rank, 0),
        "p_up_bias": (programs * wide, 0),
    }
    if not a.get("INPUT_GRAD", True):
        once["p_down"] = (0, 0)
    return {name: Moved(*once[name], t.itemsize) for name, t in tensors(launch) if name in once}


def tensors(launch: Launch) -> Iterable[tuple[str, Tensor]]:
    return [(name, value) for name, value in launch.arguments.items() if isinstance(value, Tensor)]
