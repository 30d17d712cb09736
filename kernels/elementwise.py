"""Activations and their derivatives, in float32, by name.

Reciprocal and power of two are the hardware's own approximations (one and two units in the last place), without the
scaling that keeps denormal operands and results exact: what is lost there is below 1e-38.
"""

import triton
import triton.language as tl

from fastloaa.kernels import interpreted

INTERPRETED = tl.constexpr(interpreted.INTERPRETED)  # inline assembly cannot be
LOG2_E = tl.constexpr(1.4426950408889634)
INV_SQRT_2PI = tl.constexpr(0.3989422804014327)
TANH_SCALE = tl.constexpr(0.7978845608028654)  # sqrt(2 / pi)
TANH_CUBE = tl.constexpr(0.044715)
ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "silu")  # by name: what `activate` and `activate_with_grad` have
FAR = tl.constexpr(16.0)  # from here on the tail of the normal distribution is zero in float32


@triton.jit
def reciprocal(x):
    """1 / x."""
    if INTERPRETED:
        return 1.0 / x
    return tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, is_pure=True, pack=1)


@triton.jit
def power_of_two(x):
    """2 ** x."""
    if INTERPRETED:
        return tl.exp2(x)
    return tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, is_pure=True, pack=1)


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return reciprocal(1.0 + power_of_two(-LOG2_E * x))


@triton.jit
def normal_tail(x):
    """(1 - Phi(x), exp(-x * x / 2)) of the standard normal distribution for x from 0 to `FAR`, NaN for NaN.

    Abramowitz and Stegun's form (7.1.26) with a term more, fitted anew: the tail, and x times it, are off by
    7e-9, where 7.1.26 itself is off by 2e-7. A third of erf's instructions, and the exponential serves the
    derivative as well.
    """
    t = reciprocal(1.0 + 0.2775 * x)
    gauss = power_of_two((-0.5 * LOG2_E) * x * x)
    poly = 0.3028436 + t * (-0.28594135 + t * (0.42244027 + t * -0.11085021))
    poly = 0.11725267 + t * (0.05425502 + t * poly)
    return t * gauss * poly, gauss


@triton.jit
def activate(x, ACT: tl.constexpr):
    """One of `ACTIVATIONS`."""
    if ACT == "gelu":
        # Beyond FAR nothing is left to subtract; from infinity infinity times zero would be.
        near = tl.minimum(tl.abs(x), FAR, propagate_nan=tl.PropagateNan.ALL)
        tail, _ = normal_tail(near)
        return tl.maximum(x, 0.0) - near * tail
    elif ACT == "gelu_tanh":
        # 0.5 (1 + tanh(y)) = sigmoid(2 y)
        return x * sigmoid(2.0 * TANH_SCALE * (x + TANH_CUBE * x * x * x))
    elif ACT == "relu":
        return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)
    else:
        tl.static_assert(ACT == "silu")
        return x * sigmoid(x)


@triton.jit
def activate_with_grad(x, ACT: tl.constexpr):
    """`activate`, and its derivative: what both need is computed once."""
    if ACT == "gelu":
        near = tl.minimum(tl.abs(x), FAR, propagate_nan=tl.PropagateNan.ALL)
        tail, gauss = normal_tail(near)
        density = near * INV_SQRT_2PI * gauss
        # The derivative at -x is 1 - that at x.
        below = tail - density
        return tl.maximum(x, 0.0) - near * tail, tl.where(x > 0.0, 1.0 - below, below)
    elif ACT == "gelu_tanh":
        gate = sigmoid(2.0 * TANH_SCALE * (x + TANH_CUBE * x * x * x))
        slope = 2.0 * TANH_SCALE * (1.0 + 3.0 * TANH_CUBE * x * x)
        return x * gate, gate + x * gate * (1.0 - gate) * slope
    elif ACT == "relu":
        return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL), tl.where(x > 0.0, 1.0, 0.0)
    else:
        tl.static_assert(ACT == "silu")
        gate = sigmoid(x)
        return x * gate, gate * (1.0 + x * (1.0 - gate))
