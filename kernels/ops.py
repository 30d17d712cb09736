"""The fused adapter as torch.library ops: functional, with fakes and autograd, so that compilers see one node.

`fastloaa::loaa_forward` and `fastloaa::loaa_backward` launch the Triton kernels on CUDA tensors (and on CPU tensors
under Triton's interpreter). What CPU tensors get otherwise is registered by `fastloaa.cpu_ops`.
"""

from typing import Any

import torch
from torch import Tensor

from fastloaa.kernels import launch
from fastloaa.normed import NormedFrom, recompute


@torch.library.custom_op("fastloaa::loaa_forward", mutates_args=(), device_types="cuda")
def loaa_forward(
    x: Tensor,
    down: Tensor,
    up: Tensor,
    down_bias: Tensor | None,
    up_bias: Tensor | None,
    mask: Tensor | None,
    block_out: Tensor | None,
    skip: Tensor | None,
    residual: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    freq_bins: int,
    prefix_tokens: int,
    time_major: bool,
    scale: float,
    activation: str,
    norm_eps: float,
    keep_pre: bool,
) -> tuple[Tensor, Tensor]:
    """(out [batch, tokens, dim], pre [batch, tokens, r] or empty); see `launch.forward`.

    With `residual` and the norm's parameters the backward pass recomputes x, see `fastloaa.normed`.
    """
    geometry = launch.Geometry(freq_bins, prefix_tokens, time_major)
    return launch.forward(x, down, up, down_bias, up_bias, mask, block_out, skip, geometry, scale, activation, keep_pre)


@loaa_forward.register_fake
def _(
    x: Tensor,
    down: Tensor,
    up: Tensor,
    down_bias: Tensor | None,
    up_bias: Tensor | None,
    mask: Tensor | None,
    block_out: Tensor | None,
    skip: Tensor | None,
    residual: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    freq_bins: int,
    prefix_tokens: int,
    time_major: bool,
    scale: float,
    activation: str,
    norm_eps: float,
    keep_pre: bool,
) -> tuple[Tensor, Tensor]:
    out = x.new_empty(x.shape, dtype=launch.result_dtype(down, block_out, skip))
    pre_shape = (x.shape[0], x.shape[1], down.shape[0]) if keep_pre else (0,)
    return out, x.new_empty(pre_shape, dtype=down.dtype)


@torch.library.custom_op("fastloaa::loaa_backward", mutates_args=(), device_types="cuda")
def loaa_backward(
    dy: Tensor,
    x: Tensor,
    down: Tensor,
    up: Tensor,
    mask: Tensor | None,
    pre: Tensor,
    freq_bins: int,
    prefix_tokens: int,
    time_major: bool,
    scale: float,
    activation: str,
    need_x: bool,
    need_down: bool,
    need_up: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(dx, d_down, d_up, d_pre), those not needed empty; see `launch.backward`."""
    geometry = launch.Geometry(freq_bins, prefix_tokens, time_major)
    return launch.backward(dy, x, down, up, mask, pre, geometry, scale, activation, need_x, need_down, need_up)


@loaa_backward.register_fake
def _(
    dy: Tensor,
    x: Tensor,
    down: Tensor,
    up: Tensor,
    mask: Tensor | None,
    pre: Tensor,
    freq_bins: int,
    prefix_tokens: int,
    time_major: bool,
    scale: float,
    activation: str,
    need_x: bool,
    need_down: bool,
    need_up: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        x.new_empty(x.shape if need_x else (0,)),
        launch.channels_last_like(down) if need_down else down.new_empty(0),
        launch.channels_last_like(up) if need_up else up.new_empty(0),
        torch.empty_like(pre),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, down, up, _, _, mask, _, _, residual, norm_weight, norm_bias, *ctx.settings, ctx.norm_eps, keep_pre = inputs
    if not keep_pre:
        raise RuntimeError("loaa_forward was asked for gradients with keep_pre=False; call fastloaa.loaa, which knows")
    kept = x if residual is None else None
    ctx.save_for_backward(kept, residual, norm_weight, norm_bias, down, up, mask, output[1])
    ctx.x_dtype = x.dtype
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, dy: Tensor, _: Tensor | None) -> tuple[Any, ...]:
    x, residual, norm_weight, norm_bias, down, up, mask, pre = ctx.saved_tensors
    if x is None:
        x = recompute(NormedFrom(residual, norm_weight, norm_bias, ctx.norm_eps), ctx.x_dtype)
    scale = ctx.settings[3]
    need_x, need_down, need_up, need_down_bias, need_up_bias, need_mask, need_block, need_skip = ctx.needs_input_grad[
        :8
    ]
    if need_mask:
        raise RuntimeError('backend "triton" gives no gradient to hidden_mask; use backend="torch"')
    dx = d_down = d_up = d_down_bias = d_up_bias = None
    if need_x or need_down or need_up or need_down_bias:
        dx, d_down, d_up, d_pre = loaa_backward(dy, x, down, up, mask, pre, *ctx.settings, need_x, need_down, need_up)
        if need_down_bias:
            d_down_bias = d_pre.sum((0, 1))
    if need_up_bias:
        d_up_bias = dy.sum((0, 1)) * scale
    # The summands' gradient is the incoming one itself: passed through, never copied.
    return (
        dx if need_x else None,
        d_down if need_down else None,
        d_up if need_up else None,
        d_down_bias,
        d_up_bias,
        None,
        dy if need_block else None,
        dy if need_skip else None,
        *(None,) * 10,
    )


loaa_forward.register_autograd(_backward, setup_context=_save)
