"""Every kernel on every grid, with prefix tokens, in both token orders."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import DTYPES, KERNELS, Case, check, with_dtypes

GRIDS = [(1, 1), (5, 7), (8, 8), (8, 25), (8, 64), (12, 101)]


@pytest.mark.parametrize(("grid", "kernel", "dtype"), with_dtypes(GRIDS, KERNELS), ids=str)
def test_grids(grid: tuple[int, int], kernel: tuple[int, int], dtype: torch.dtype) -> None:
    """The order and the number of prefix tokens change with the case; every pair of them is in `test_any_grid`."""
    number = GRIDS.index(grid) + KERNELS.index(kernel)
    order = "time" if number % 2 else "freq"
    batch = 1 if grid[0] * grid[1] > 200 else 3
    check(Case(*grid, kernel, number % 5, order, batch, rank=3), dtype)


@pytest.mark.parametrize(
    ("order", "dtype"), [("freq", torch.float16), ("time", torch.bfloat16)], ids=["freq-float16", "time-bfloat16"]
)
@pytest.mark.parametrize("kernel", [(1, 3), (1, 7), (3, 1)], ids=str)
def test_lines_longer_than_a_tile(kernel: tuple[int, int], order: str, dtype: torch.dtype) -> None:
    check(Case(2, 512, kernel, 2, order, batch=1, rank=3), dtype)  # type: ignore[arg-type]


@settings(max_examples=40, derandomize=True)
@given(
    freq=st.integers(1, 9),
    time=st.integers(1, 40),
    kernel=st.sampled_from(KERNELS),
    prefix=st.integers(0, 4),
    order=st.sampled_from(["freq", "time"]),
    batch=st.integers(1, 5),
    rank=st.integers(8, 24),  # of one row the norm is a single number, whose cancellations no bound holds
    summands=st.integers(0, 2),
    strided=st.booleans(),
    dtype=st.sampled_from(DTYPES),
)
def test_any_grid(
    freq: int,
    time: int,
    kernel: tuple[int, int],
    prefix: int,
    order: str,
    batch: int,
    rank: int,
    summands: int,
    strided: bool,
    dtype: torch.dtype,
) -> None:
    case = Case(freq, time, kernel, prefix, order, batch, 16, rank, summands, strided=strided)  # type: ignore[arg-type]
    check(case, dtype)
