"""The operands and settings of one adapter call: the only list of them, for every backend and for torch.library."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor


@dataclass(slots=True, eq=False)  # frozen would take three times as long to make
class Call:
    """`[block_out +] [skip +] scale * up(activation(down(x)) * mask)` over a grid of tokens.

    x, block_out and skip are [batch, tokens, dim], down [r, dim, kf, kt], up [dim, r, kf, kt], the biases [r] and
    [dim], mask [batch, tokens, r]. Weights, biases and mask have one dtype; x and the summands may have wider ones.
    With residual [batch, tokens, dim] and the norm's parameters [dim], x is the LayerNorm of residual, and the
    backward pass may recompute it.
    """

    x: Tensor
    down: Tensor
    up: Tensor
    down_bias: Tensor | None
    up_bias: Tensor | None
    mask: Tensor | None
    block_out: Tensor | None
    skip: Tensor | None
    residual: Tensor | None
    norm_weight: Tensor | None
    norm_bias: Tensor | None
    freq_bins: int
    prefix_tokens: int
    time_major: bool
    scale: float
    activation: str
    norm_eps: float

    def flat(self) -> tuple[Any, ...]:
        """The fields in order, as the schema has them and `Call(*flat)` takes them."""
        return tuple([getattr(self, name) for name in FIELDS])

    def settings(self) -> tuple[Any, ...]:
        """What is no tensor, in order."""
        return tuple([getattr(self, name) for name in SETTINGS])

    def operands(self) -> tuple[Tensor | None, ...]:
        """The tensors that the result depends on, in order: those that may want a gradient."""
        return tuple([getattr(self, name) for name in OPERANDS])

    def layout(self) -> Hashable:
        """All that a launch depends on but for the numbers in memory and where they lie."""
        tensors = [None if t is None else (t.device, t.shape, t.stride(), t.dtype) for t in _operands(self)]
        return (*tensors, *_settings(self))

    def without(self, *names: str) -> "Call":
        """With None for some of the operands. The compiler of torch 2.6 cannot follow dataclasses.replace."""
        values: list[Any] = [None if name in names else getattr(self, name) for name in FIELDS]
        return Call(*values)

    @property
    def kernel(self) -> tuple[int, int]:
        """Sizes along (frequency, time)."""
        return self.down.shape[2], self.down.shape[3]

    @property
    def summands(self) -> list[Tensor]:
        """Those that are given."""
        return [summand for summand in (self.block_out, self.skip) if summand is not None]


FIELDS = tuple(field.name for field in fields(Call))
OPERANDS = FIELDS[: FIELDS.index("residual")]
SETTINGS = FIELDS[FIELDS.index("freq_bins") :]
# Faster than a loop, but no compiler follows them.
_operands: Callable[[Call], tuple[Any, ...]] = attrgetter(*OPERANDS)
_settings: Callable[[Call], tuple[Any, ...]] = attrgetter(*SETTINGS)

_TYPES: dict[Any, str] = {
    Tensor: "Tensor",
    Tensor | None: "Tensor?",
    int: "SymInt",
    bool: "bool",
    float: "float",
    str: "str",
}


def schema(results: int, before: str = "", after: str = "") -> str:
    """Of a torch.library op that takes a call's fields, between arguments of its own, and returns tensors."""
    own = ", ".join(f"{_TYPES[field.type]} {field.name}" for field in fields(Call))
    arguments = ", ".join(part for part in (before, own, after) if part)
    return f"({arguments}) -> ({', '.join(['Tensor'] * results)})"


def result_dtype(call: Call) -> torch.dtype:
    """The dtype that adding the summands to a branch in the weights' dtype gives."""
    dtype = call.down.dtype
    for summand in call.summands:
        dtype = torch.promote_types(dtype, summand.dtype)
    return dtype


def channels_last_like(weight: Tensor) -> Tensor:
    """An empty tensor of the weight's shape in the order in memory that GEMMs want."""
    return torch.empty(weight.shape, dtype=weight.dtype, device=weight.device, memory_format=torch.channels_last)
