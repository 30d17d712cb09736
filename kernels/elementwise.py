"""Activations and their derivatives, in float32, by name."""

import triton
import triton.language as tl

SQRT_HALF = tl.constexpr(0.7071067811865476)
INV_SQRT_2PI = tl.constexpr(0.3989422804014327)
TANH_SCALE = tl.constexpr(0.7978845608028654)  # sqrt(2 / pi)
TANH_CUBE = tl.constexpr(0.044715)


@triton.jit
def activate(x, ACT: tl.constexpr):
    """gelu (erf), gelu_tanh, relu or silu."""
    if ACT == "gelu":
        return 0.5 * x * (1.0 + tl.erf(x * SQRT_HALF))
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
        return 0.5 * (1.0 + tl.erf(x * SQRT_HALF)) + x * INV_SQRT_2PI * tl.exp(-0.5 * x * x)
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
