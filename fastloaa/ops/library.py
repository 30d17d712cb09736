"""The fused adapter for PyTorch: torch.library ops, so that compilers see one node, and a shorter way for eager calls.

`fastloaa::loaa_forward` and `fastloaa::loaa_backward` launch the Triton kernels on CUDA tensors. What CPU tensors get
is registered by `fastloaa.ops.cpu`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from fastloaa.kernels import launch
from fastloaa.kernels.call import FIELDS, Call, channels_last_like, result_dtype, schema
from fastloaa.ops.normed import NormedFrom, recompute

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor]


@torch.library.custom_op(
    "fastloaa::loaa_forward", mutates_args=(), device_types="cuda", schema=schema(2, after="bool keep_pre")
)
def loaa_forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    """(call..., keep_pre) -> (out [batch, tokens, dim], pre [batch, tokens, r] or empty); see `launch.forward`."""
    *call, keep_pre = arguments
    return forward_result(*launch.forward(Call(*call), keep_pre))


def forward_result(out: Tensor, pre: Tensor | None) -> tuple[Tensor, Tensor]:
    """As ops give it, which return tensors only."""
    return out, out.new_empty(0) if pre is None else pre


@loaa_forward.register_fake
def _(*arguments: Any) -> tuple[Tensor, Tensor]:
    *flat, keep_pre = arguments
    call = Call(*flat)
    x, rank = call.x, call.down.shape[0]
    out = x.new_empty(x.shape, dtype=result_dtype(call))
    return out, x.new_empty((x.shape[0], x.shape[1], rank), dtype=call.down.dtype) if keep_pre else out.new_empty(0)


@torch.library.custom_op(
    "fastloaa::loaa_backward",
    mutates_args=(),
    device_types="cuda",
    schema=schema(4, "Tensor dy, Tensor pre", "bool need_x, bool need_down, bool need_up"),
)
def loaa_backward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(dy, pre, call..., needs) -> (dx, d_down, d_up, d_pre), those not needed empty; see `launch.backward`."""
    dy, pre, *flat, need_x, need_down, need_up = arguments
    call = Call(*flat)
    return backward_result(call, launch.backward(call, dy, pre, need_x, need_down, need_up))


def backward_result(call: Call, gradients: Gradients) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As ops give it, in the layouts that the fake promises."""
    dx, d_down, d_up, d_pre = gradients
    return (
        call.x.new_empty(0) if dx is None else dx,
        call.down.new_empty(0) if d_down is None else d_down,
        call.up.new_empty(0) if d_up is None else d_up,
        d_pre,
    )


@loaa_backward.register_fake
def _(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _, pre, *flat, need_x, need_down, need_up = arguments
    call = Call(*flat)
    return (
        call.x.new_empty(call.x.shape if need_x else (0,)),
        channels_last_like(call.down) if need_down else call.down.new_empty(0),
        channels_last_like(call.up) if need_up else call.up.new_empty(0),
        torch.empty_like(pre),
    )


@register_flop_formula(torch.ops.fastloaa.loaa_forward)
def _(x: torch.Size, down: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * _product_flops(x, down)


@register_flop_formula(torch.ops.fastloaa.loaa_backward)
def _(dy: torch.Size, pre: torch.Size, x: torch.Size, down: torch.Size, *rest: Any, **_: Any) -> int:
    return (1 + sum(rest[-3:])) * _product_flops(x, down)  # one for the hidden rows, and for each gradient


def _product_flops(x: torch.Size, weight: torch.Size) -> int:
    """Of one product of all tokens and a weight's taps, as a FlopCounterMode counts them."""
    return 2 * x[0] * x[1] * weight.numel()


def _save(ctx: Any, call: Call, pre: Tensor) -> None:
    """Keep what the backward pass needs: of x what it is normed from, where that is known; of the summands nothing."""
    kept = call.x if call.residual is None else None
    norm = (call.residual, call.norm_weight, call.norm_bias)
    ctx.save_for_backward(kept, *norm, call.down, call.up, call.mask, pre)
    ctx.x_dtype, ctx.settings = call.x.dtype, call.settings()


def _gradients(ctx: Any, dy: Tensor, needs: tuple[bool, ...], backward: Callable[..., Gradients]) -> tuple[Any, ...]:
    """One for each field of a call; `needs` says which are wanted."""
    # Read once: activation checkpointing recomputes them at each access.
    x, residual, norm_weight, norm_bias, down, up, mask, pre = ctx.saved_tensors
    if x is None:
        x = recompute(NormedFrom(residual, norm_weight, norm_bias, ctx.settings[-1]), ctx.x_dtype)
    call = Call(x, down, up, None, None, mask, None, None, None, None, None, *ctx.settings)
    need_x, need_down, need_up, need_down_bias, need_up_bias, need_mask, need_block, need_skip = needs[:8]
    if need_mask:
        raise RuntimeError('backend "triton" gives no gradient to hidden_mask; use backend="torch"')
    dx = d_down = d_up = d_down_bias = d_up_bias = None
    if need_x or need_down or need_up or need_down_bias:
        dx, d_down, d_up, d_pre = backward(call, dy, pre, need_x, need_down, need_up)
        if need_down_bias:
            d_down_bias = d_pre.sum((0, 1))
    if need_up_bias:
        d_up_bias = dy.sum((0, 1)) * call.scale
    return (
        dx if need_x else None,
        d_down if need_down else None,
        d_up if need_up else None,
        d_down_bias,
        d_up_bias,
        None,
        # The summands' gradient is the incoming one itself: passed through, never copied.
        dy if need_block else None,
        dy if need_skip else None,
        *(None,) * (len(FIELDS) - 8),
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *flat, keep_pre = inputs
    if not keep_pre:
        raise RuntimeError("loaa_forward was asked for gradients with keep_pre=False; call fastloaa.loaa, which knows")
    _save(ctx, Call(*flat), output[1])
    ctx.mark_non_differentiable(output[1])


def _by_op(call: Call, dy: Tensor, pre: Tensor, *needs: bool) -> Gradients:
    return loaa_backward(dy, pre, *call.flat(), *needs)


def _backward(ctx: Any, dy: Tensor, _: Tensor | None) -> tuple[Any, ...]:
    return *_gradients(ctx, dy, ctx.needs_input_grad, _by_op), None


loaa_forward.register_autograd(_backward, setup_context=_setup)


class _Eager(torch.autograd.Function):
    """What the ops do, without their way through PyTorch's dispatcher, which costs more than the launches."""

    @staticmethod
    def forward(ctx: Any, memo: launch.Memo, *flat: Any) -> Tensor:
        call = Call(*flat)
        out, pre = launch.forward(call, True, memo)
        assert pre is not None
        _save(ctx, call, pre)
        return out

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
        # With a graph of the backward pass, as an op, whose own gradient is a clear error.
        backward = _by_op if torch.is_grad_enabled() else launch.backward
        return None, *_gradients(ctx, dy, ctx.needs_input_grad[1:], backward)


def fused(call: Call, memo: launch.Memo | None) -> Tensor:
    """Branch plus summands by the kernels, as `launch.forward`; as an op where memo is None, which records see."""
    keep_pre = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in call.operands())
    if memo is None:
        if not keep_pre and call.residual is not None:  # nothing will be recomputed
            call = call.without("residual", "norm_weight", "norm_bias")
        return loaa_forward(*call.flat(), keep_pre)[0]
    if keep_pre:
        return _Eager.apply(memo, *call.flat())
    return launch.forward(call, False, memo)[0]
