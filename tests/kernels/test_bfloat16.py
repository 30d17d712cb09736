"""bfloat16 as Triton computes with it: the same on a GPU and in the interpreter as the tests put it right."""

import pytest
import torch
import triton
import triton.language as tl
from kernel_cases import DEVICE

from fastloaa.kernels.interpreted import INTERPRETED


@triton.jit
def cast_kernel(p_from, p_to, N: tl.constexpr):
    place = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(p_to + place, tl.load(p_from + place))


@triton.jit
def dot_kernel(p_left, p_right, p_out, N: tl.constexpr):
    place = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    tl.store(p_out + place, tl.dot(tl.load(p_left + place), tl.load(p_right + place)))


@triton.jit
def add_kernel(p_left, p_out, N: tl.constexpr):
    place = tl.arange(0, N)
    b_left = tl.load(p_left + place)
    tl.store(p_out + place, b_left + b_left)


def every_bfloat16() -> torch.Tensor:
    return torch.arange(-(1 << 15), 1 << 15, device=DEVICE).to(torch.int16).view(torch.bfloat16)


def test_widening_is_exact() -> None:
    numbers = every_bfloat16()
    wide = torch.empty(numbers.shape, dtype=torch.float32, device=DEVICE)
    cast_kernel[(16,)](numbers, wide, 4096)
    torch.testing.assert_close(wide, numbers.float(), rtol=0, atol=0, equal_nan=True)


def test_stores_round_to_the_nearest_and_ties_to_even() -> None:
    """Every bfloat16 number with what may follow it in float32: nothing, less than half, half, more than half."""
    bits = every_bfloat16().view(torch.int16).int() << 16
    for tail in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF):
        numbers = (bits | tail).view(torch.float32)
        rounded = torch.empty(numbers.shape, dtype=torch.bfloat16, device=DEVICE)
        cast_kernel[(16,)](numbers, rounded, 4096)
        torch.testing.assert_close(rounded, numbers.bfloat16(), rtol=0, atol=0, equal_nan=True)


def test_products_are_of_the_numbers() -> None:
    left, right = (torch.randn(16, 16, device=DEVICE).bfloat16() for _ in range(2))
    out = torch.empty(16, 16, device=DEVICE)
    dot_kernel[(1,)](left, right, out, 16)
    torch.testing.assert_close(out.double(), left.double() @ right.double(), rtol=1e-5, atol=1e-5)


if INTERPRETED:

    def test_sums_of_bfloat16_blocks_are_refused() -> None:
        left = torch.ones(16).bfloat16()
        with pytest.raises(Exception, match="add on bfloat16 blocks; convert them to float32 first"):
            add_kernel[(1,)](left, left.clone(), 16)
