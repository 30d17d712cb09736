"""Bottlenecks from 1 to 256 and model widths: padding, blocks, and several launches where one is not enough."""

import pytest
import torch
from kernel_cases import DTYPES, Case, check, with_dtypes

from fastloaa.kernels import tile_launch

RANKS = [1, 7, 36, 54, 72, 108, 129, 256]


@pytest.mark.parametrize(("rank", "kernel", "dtype"), with_dtypes(RANKS, [(1, 3), (3, 1), (1, 1)]), ids=str)
def test_bottlenecks(rank: int, kernel: tuple[int, int], dtype: torch.dtype) -> None:
    # The gradient of a single bias is one number, the rest of what cancels: no relative error to speak of.
    check(Case(kernel=kernel, rank=rank, mask=True, bias=rank > 1), dtype)


@pytest.mark.parametrize(("wide", "dtype"), with_dtypes([((1, 7), 37), ((5, 1), 256), ((7, 1), 255)]), ids=str)
def test_several_launches(wide: tuple[tuple[int, int], int], dtype: torch.dtype) -> None:
    kernel, rank = wide
    weight = torch.empty(rank, 16, *kernel, dtype=dtype)
    parts = tile_launch.parts("forward", weight)
    assert len(parts) > 1
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(rank))
    check(Case(kernel=kernel, rank=rank, batch=1, mask=True, bias=True, scale=0.5), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [16, 48, 80, 192])
def test_widths(dim: int, dtype: torch.dtype) -> None:
    check(Case(dim=dim, bias=True), dtype)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("full", "dtype"),
    with_dtypes([(384, 36, (1, 3)), (768, 36, (3, 1)), (768, 72, (1, 3)), (1024, 108, (1, 1))]),
    ids=str,
)
def test_full_widths(full: tuple[int, int, tuple[int, int]], dtype: torch.dtype) -> None:
    dim, rank, kernel = full
    check(Case(8, 8, kernel, 2, "freq", 2, dim, rank), dtype)
