"""Forward and backward on whole tensors: allocation, and one launch after the other."""

import torch
from torch import Tensor

from fastloaa.kernels import prepare
from fastloaa.kernels.prepare import Geometry


def forward(
    x: Tensor,
    down: Tensor,
    up: Tensor,
    down_bias: Tensor | None,
    up_bias: Tensor | None,
    mask: Tensor | None,
    block_out: Tensor | None,
    skip: Tensor | None,
    geometry: Geometry,
    scale: float,
    activation: str,
    keep_pre: bool,
) -> tuple[Tensor, Tensor]:
    """Branch plus summands, and the pre-activation [batch, tokens, r] (empty unless `keep_pre`).

    x and summands [batch, tokens, dim], down [r, dim, kf, kt], up [dim, r, kf, kt] of one dtype, all with any strides;
    mask [batch, tokens, r]. x may be wider than the weights' dtype: it is rounded as it is read.
    """
    batch, tokens, _ = x.shape
    out = x.new_empty(x.shape, dtype=result_dtype(down, block_out, skip))
    pre = x.new_empty((batch, tokens, down.shape[0]) if keep_pre else (0,), dtype=down.dtype)
    if not out.numel():
        return out, pre
    down_bias, up_bias, mask = _dense(down_bias), _dense(up_bias), _dense(mask)
    parts = prepare.parts("forward", down)
    for part in parts:
        # Sums of several launches pass through float32; the summands and the output bias join the first.
        target = out if part is parts[-1] else x.new_empty(x.shape, dtype=torch.float32)
        prepare.forward(
            x,
            down,
            up,
            down_bias,
            up_bias,
            mask,
            block_out,
            skip,
            target,
            pre if keep_pre else None,
            part,
            geometry,
            scale,
            activation,
        ).run()
        block_out, skip, up_bias = target, None, None
    return out, pre


def backward(
    dy: Tensor,
    x: Tensor,
    down: Tensor,
    up: Tensor,
    mask: Tensor | None,
    pre: Tensor,
    geometry: Geometry,
    scale: float,
    activation: str,
    need_x: bool,
    need_down: bool,
    need_up: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(dx, d_down, d_up, d_pre); those not needed are empty, d_pre [batch, tokens, r] is for the bias.

    d_down and d_up are float32 sums rounded to the weights' dtype, in their shapes, stored channels_last.
    """
    mask = _dense(mask)
    d_pre, hidden = torch.empty_like(pre), torch.empty_like(pre)
    dx = x.new_empty(x.shape if need_x else (0,))
    if x.numel():
        _input_grad(dy, down, up, mask, pre, d_pre, hidden, dx if need_x else None, geometry, scale, activation)
    d_down = channels_last_like(down) if need_down else down.new_empty(0)
    d_up = channels_last_like(up) if need_up else up.new_empty(0)
    if need_down or need_up:
        partial = _partial_sums(dy, x, down, hidden, d_pre, geometry, need_down, need_up)
        prepare.weight_sum(partial, d_down if need_down else None, d_up if need_up else None).run()
    return dx, d_down, d_up, d_pre


def _input_grad(
    dy: Tensor,
    down: Tensor,
    up: Tensor,
    mask: Tensor | None,
    pre: Tensor,
    d_pre: Tensor,
    hidden: Tensor,
    dx: Tensor | None,
    geometry: Geometry,
    scale: float,
    activation: str,
) -> None:
    """Fill d_pre, the hidden rows and dx; dx of several launches passes through float32, as in the forward."""
    parts = prepare.parts("input_grad", down)
    partial = target = None
    for part in parts:
        if dx is not None:
            target = dx if part is parts[-1] else dx.new_empty(dx.shape, dtype=torch.float32)
        prepare.input_grad(
            dy, down, up, mask, pre, d_pre, hidden, partial, target, part, geometry, scale, activation
        ).run()
        partial = target


def _partial_sums(
    dy: Tensor,
    x: Tensor,
    down: Tensor,
    hidden: Tensor,
    d_pre: Tensor,
    geometry: Geometry,
    need_down: bool,
    need_up: bool,
) -> Tensor:
    """Of the wanted gradients, [gradients, splits, taps * r, dim] float32."""
    dy, x = _even_rows(dy), _even_rows(x)
    gradients = need_down + need_up
    together = gradients == 1 or dy.dtype == x.dtype
    split = prepare.Split.of(dy, x, down, gradients if together else 1)
    partial = x.new_empty((gradients, split.splits, down.numel() // x.shape[2], x.shape[2]), dtype=torch.float32)
    if not split.splits:
        return partial
    launches = [(partial, need_down, need_up)] if together else [(partial[:1], True, False), (partial[1:], False, True)]
    for sums, for_down, for_up in launches:
        prepare.weight_grad(dy, x, down, hidden, d_pre, sums, split, geometry, for_down, for_up).run()
    return partial


def result_dtype(weight: Tensor, *summands: Tensor | None) -> torch.dtype:
    """The dtype that adding the summands to a branch in the weights' dtype gives."""
    dtype = weight.dtype
    for summand in summands:
        dtype = dtype if summand is None else torch.promote_types(dtype, summand.dtype)
    return dtype


def channels_last_like(weight: Tensor) -> Tensor:
    """An empty tensor of the weight's shape in the order in memory that GEMMs want."""
    return torch.empty(weight.shape, dtype=weight.dtype, device=weight.device, memory_format=torch.channels_last)


def _dense(tensor: Tensor | None) -> Tensor | None:
    """The kernels take strides of what is as wide as the model; what is small is copied where it is not dense."""
    return None if tensor is None else tensor.contiguous()


def _even_rows(tensor: Tensor) -> Tensor:
    """[batch, tokens, dim] as rows with one stride, copied where clips or channels lie otherwise."""
    batch, tokens, _ = tensor.shape
    clip, token, channel = tensor.stride()
    even = channel == 1 and (batch == 1 or clip == tokens * token)
    return tensor if even else tensor.contiguous()
