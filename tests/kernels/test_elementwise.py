"""The kernels' activations and derivatives against float64, value for value."""

import math

import pytest
import torch
import triton
import triton.language as tl
from kernel_cases import DEVICE
from torch import Tensor

from fastloaa.kernels.elementwise import activate, activate_with_grad
from fastloaa.ops.activations import ACTIVATIONS

BLOCK = 1024
ONE_ULP = 2.0**-23  # of 1 in float32


@triton.jit
def both_kernel(p_in, p_alone, p_value, p_slope, ACT: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(p_in + i)
    value, slope = activate_with_grad(x, ACT)
    tl.store(p_alone + i, activate(x, ACT))
    tl.store(p_value + i, value)
    tl.store(p_slope + i, slope)


def evaluate(x: Tensor, activation: str) -> tuple[Tensor, Tensor]:
    """(values, derivatives) of the kernels, values being the same alone."""
    padded = torch.nn.functional.pad(x, (0, -x.numel() % BLOCK))
    alone, value, slope = (torch.empty_like(padded) for _ in range(3))
    both_kernel[(padded.numel() // BLOCK,)](padded, alone, value, slope, activation, BLOCK)
    torch.testing.assert_close(alone, value, rtol=0, atol=0, equal_nan=True)
    return value[: x.numel()], slope[: x.numel()]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_dense_sweep(activation: str) -> None:
    """From -20 to 20, and around zero down to denormals: off by less than a unit of 1, or of a larger result."""
    tiny = torch.logspace(-44, -1, 500, dtype=torch.float64)
    x = torch.cat((torch.linspace(-20, 20, 40_001, dtype=torch.float64), tiny, -tiny)).float().to(DEVICE)
    value, slope = evaluate(x, activation)
    exact = x.double().requires_grad_()
    expected = ACTIVATIONS[activation].forward(exact)
    (expected_slope,) = torch.autograd.grad(expected.sum(), exact)
    # The other gates are right to a few units of 1, which x multiplies, in the derivative of gelu_tanh x ** 3.
    scale = 1 if activation == "gelu" else exact.detach().abs().clamp_min(1)
    assert off(value, expected.detach(), scale) < ONE_ULP
    assert off(slope, expected_slope, scale) < (2 if activation == "gelu" else 8) * ONE_ULP


def off(got: Tensor, want: Tensor, scale: Tensor | int) -> float:
    return ((got.double() - want).abs() / (want.abs().clamp_min(1) * scale)).max().item()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_infinity_and_nan(activation: str) -> None:
    value, slope = evaluate(torch.tensor([math.inf, math.nan], device=DEVICE), activation)
    assert value[0] == math.inf
    assert value[1].isnan()
    if activation in ("gelu", "relu"):
        assert slope[0] == 1
    if activation != "relu":  # whose derivative PyTorch too gives as zero for NaN
        assert slope[1].isnan()
