"""Calls of the pass between a merged model's widened Linears, and their definition in float64."""

from dataclasses import dataclass

import torch
from kernel_cases import DEVICE, draw
from torch import Tensor

from fastloaa.grid import TokenGrid, TokenOrder
from fastloaa.ops.activations import ACTIVATIONS
from fastloaa.ops.shifts import Offset, fold, negated, offsets, unfold

PADDING = 3  # columns after the adapter's


@dataclass(frozen=True)
class Case:
    """Sizes and options of one call; small unless a test asks for more."""

    freq: int = 3
    time: int = 5
    kernel: tuple[int, int] = (1, 3)
    prefix: int = 1
    order: TokenOrder = "freq"
    batch: int = 2
    start: int = 24
    rank: int = 5
    activation: str = "gelu"
    wide_activation: str = "gelu"
    sliced: bool = False

    @property
    def grid(self) -> TokenGrid:
        return TokenGrid(self.freq, self.time, self.prefix, self.order)

    @property
    def end(self) -> int:
        """Of the adapter's columns."""
        return self.start + max(self.kernel) * self.rank

    @property
    def arguments(self) -> tuple[int, int, int, int, int, int, bool, str, str]:
        settings = (*self.kernel, self.freq, self.prefix, self.order == "time")
        return (self.start, self.rank, *settings, self.activation, self.wide_activation)

    def neighbours(self, taps: list[Offset]) -> Tensor:
        """Which taps of which tokens lie on the grid, [1, tokens, taps, 1]."""
        return unfold(torch.ones(1, self.grid.tokens, 1, device=DEVICE), self.grid, taps) > 0

    def buffer(self, dtype: torch.dtype) -> Tensor:
        """Always the same numbers, NaN where nothing may be read: padding, columns of no neighbour, all around."""
        shape = (self.batch, self.grid.tokens, self.end + PADDING)
        buffer = draw(shape, 1).to(dtype)
        buffer[..., self.end :] = torch.nan
        columns = buffer[..., self.start : self.end].unflatten(2, (-1, self.rank))
        columns.masked_fill_(~self.neighbours(negated(offsets(*self.kernel, self.grid))), torch.nan)
        if not self.sliced:
            return buffer
        around = buffer.new_full((shape[0] + 1, shape[1] + 2, shape[2] + 7), torch.nan)
        return around[1:, 1:-1, 4:-3].copy_(buffer)

    def expected(self, buffer: Tensor) -> tuple[Tensor, Tensor]:
        """(wide columns, adapter's columns) in float64."""
        exact, taps = buffer.double(), offsets(*self.kernel, self.grid)
        wide, columns = exact[..., : self.start], exact[..., self.start : self.end].unflatten(2, (-1, self.rank))
        hidden = ACTIVATIONS[self.activation].forward(fold(columns, self.grid, taps))
        if self.wide_activation:
            wide = ACTIVATIONS[self.wide_activation].forward(wide)
        return wide, unfold(hidden, self.grid, taps).flatten(2)
