"""Activations and their derivatives, in float32, by name."""

import triton
import triton.language as tl

INV_SQRT_2PI = tl.constexpr(0.3989422804014327)
TANH_SCALE = tl.constexpr(0.7978845608028654)  # sqrt(2 / pi)
TANH_CUBE = tl.constexpr(0.044715)


@triton.jit
def normal_tail(x):
    """(1 - Phi(|x|), exp(-x * x / 2)) of the standard normal distribution, in float32.

    Abramowitz and Stegun 7.1.26, whose error (7.5e-8) is that of float32 itself; of a third of erf's instructions,
    and the exponential serves the derivative as well.
    """
    t = 1.0 / (1.0 + 0.231641888 * tl.abs(x))
    gauss = tl.exp(-0.5 * x * x)
    tail = t * (0.127414796 + t * (-0.142248368 + t * (0.7107068705 + t * (-0.7265760135 + t * 0.5307027145))))
    return tail * gauss, gauss


@triton.jit
def activate(x, ACT: tl.constexpr):
    """gelu (erf), gelu_tanh, relu or silu."""
    if ACT == "gelu":
        tail, _ = normal_tail(x)
        return tl.maximum(x, 0.0) - tl.abs(x) * tail
    elif ACT == "gelu_tanh":
        # 0.5 (1 + tanh(y)) = sigmoid(2 y)
        return x * tl.sigmoid(2.0 * TANH_SCALE * (x + TANH_CUBE * x * x * x))
    elif ACT == "relu":
        return tl.maximum(x, 0.0)
    else:
        tl.static_assert(ACT == "silu")
        return x * tl.sigmoid(x)


@triton.jit
def activate_grad(x, ACT: tl.constexpr):
    """The derivative of `activate`."""
    if ACT == "gelu":
        tail, gauss = normal_tail(x)
        return tl.where(x > 0.0, 1.0 - tail, tail) + x * INV_SQRT_2PI * gauss
    elif ACT == "gelu_tanh":
        gate = tl.sigmoid(2.0 * TANH_SCALE * (x + TANH_CUBE * x * x * x))
        slope = 2.0 * TANH_SCALE * (1.0 + 3.0 * TANH_CUBE * x * x)
        return gate + x * gate * (1.0 - gate) * slope
    elif ACT == "relu":
        return tl.where(x > 0.0, 1.0, 0.0)
    else:
        tl.static_assert(ACT == "silu")
        gate = tl.sigmoid(x)
        return gate * (1.0 + x * (1.0 - gate))
