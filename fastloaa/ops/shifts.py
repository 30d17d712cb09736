"""Shifted sums and shifted copies of r-wide rows along the token grid: all of a convolution that is not a GEMM.

`fold` follows a down-projection to taps * r columns, `unfold` precedes an up-projection; with negated taps each is the
transpose of the other.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fastloaa.grid import TokenGrid

Offset = tuple[int, int]
"""The neighbour that a tap reads, counted along the (slow, fast) axes of the grid as it lies in memory."""


def offsets(kf: int, kt: int, grid: TokenGrid) -> list[Offset]:
    """The taps of a (frequency, time) kernel, in the order of its weights."""
    pairs = [(f - kf // 2, t - kt // 2) for f in range(kf) for t in range(kt)]
    return pairs if grid.token_order == "freq" else [(t, f) for f, t in pairs]


def negated(taps: Sequence[Offset]) -> list[Offset]:
    """The taps seen from the neighbours."""
    return [(-row, -col) for row, col in taps]


def fold(columns: Tensor, grid: TokenGrid, taps: Sequence[Offset]) -> Tensor:
    """Shifted sum, [B, N, taps, r] -> [B, N, r]: out[p] = sum over taps k of columns[p + taps[k], k].

    Neighbours outside the grid count as zero; prefix tokens take the centre tap alone.
    """
    centre = taps.index((0, 0))
    out = columns[:, :, centre].clone(memory_format=torch.contiguous_format)
    out_grid = _on_grid(out, grid)  # [B, rows, cols, r]
    column_grid = _on_grid(columns, grid)  # [B, rows, cols, taps, r]
    for tap, offset in enumerate(taps):
        if tap != centre:
            (to_rows, to_cols), (from_rows, from_cols) = _overlap(grid, offset)
            out_grid[:, to_rows, to_cols] += column_grid[:, from_rows, from_cols, tap]
    return out


def unfold(hidden: Tensor, grid: TokenGrid, taps: Sequence[Offset]) -> Tensor:
    """Shifted copies, [B, N, r] -> [B, N, taps, r]: out[p, k] = hidden[p + taps[k]], zero outside the grid.

    Prefix tokens appear at the centre tap alone.
    """
    if len(taps) == 1:
        return hidden.unsqueeze(2)
    out = hidden.new_zeros(*hidden.shape[:2], len(taps), hidden.shape[2])
    out[:, :, taps.index((0, 0))] = hidden
    out_grid = _on_grid(out, grid)  # [B, rows, cols, taps, r]
    hidden_grid = _on_grid(hidden, grid)  # [B, rows, cols, r]
    for tap, offset in enumerate(taps):
        if offset != (0, 0):
            (to_rows, to_cols), (from_rows, from_cols) = _overlap(grid, offset)
            out_grid[:, to_rows, to_cols, tap] = hidden_grid[:, from_rows, from_cols]
    return out


def _on_grid(rows: Tensor, grid: TokenGrid) -> Tensor:
    """[B, N, ...] -> view of the patches, [B, rows, cols, ...]. Not by `unflatten`, which batched gradients lack."""
    return rows[:, grid.prefix_tokens :].view(rows.shape[0], *grid.rows_cols, *rows.shape[2:])


def _overlap(grid: TokenGrid, offset: Offset) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """((rows, cols) written, (rows, cols) read) where position p and p + offset both lie on the grid."""
    (rows, cols), (row, col) = grid.rows_cols, offset
    return (_shifted(rows, -row), _shifted(cols, -col)), (_shifted(rows, row), _shifted(cols, col))


def _shifted(size: int, step: int) -> slice:
    """The part of an axis that stays on it when moved by -step; empty when the step is longer than the axis."""
    return slice(max(step, 0), max(size + min(step, 0), 0))
