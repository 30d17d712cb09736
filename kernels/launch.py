"""Forward and backward on whole tensors: allocation, and one launch after the other."""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fastloaa.kernels import chip, tile_launch, weight_grad_launch
from fastloaa.kernels.call import Call, channels_last_like, result_dtype
from fastloaa.kernels.launchable import Launch
from fastloaa.kernels.plan import Plan
from fastloaa.kernels.remembered import Remembered
from fastloaa.kernels.tile import Geometry

Memo = dict[Hashable, Any]
"""What is remembered of calls of one layout."""

_memos, _backward_plans = Remembered(), Remembered()


@dataclass(frozen=True, slots=True)
class _ForwardPlan:
    plan: Plan
    dtype: torch.dtype  # of the result


@dataclass(frozen=True, slots=True)
class _BackwardPlan:
    plans: tuple[Plan, ...]
    partial: torch.Size | None  # of the weight gradients' partial sums


def forward(call: Call, keep_pre: bool, memo: Memo | None = None) -> tuple[Tensor, Tensor | None]:
    """Branch plus summands, and the pre-activation [batch, tokens, r], None unless `keep_pre`.

    Tensors may have any strides; x may be wider than the weights' dtype: it is rounded as it is read. `memo` is one
    that its owner keeps for calls of this layout, and for no others.
    """
    x, down = call.x, call.down
    if memo is None:
        memo = _memo(call)
    key = (keep_pre, _precision(down))
    known: _ForwardPlan | None = memo.get(key)
    dtype = known.dtype if known else result_dtype(call)
    out = torch.empty_like(x, dtype=dtype, memory_format=torch.contiguous_format)
    pre = None
    if keep_pre:
        pre = torch.empty((x.shape[0], x.shape[1], down.shape[0]), dtype=down.dtype, device=x.device)
    if known:
        known.plan.bind(
            {
                "p_x": x,
                "p_down": down,
                "p_up": call.up,
                "p_down_bias": call.down_bias,
                "p_up_bias": call.up_bias,
                "p_mask": call.mask,
                "p_block": call.block_out,
                "p_skip": call.skip,
                "p_out": out,
                "p_pre": pre,
            }
        ).run()
        return out, pre
    if not out.numel():
        return out, pre
    launches = _forward(call, out, pre)
    if len(launches) == 1 and _all_dense(call) and x.device.type != "meta":
        memo[key] = _ForwardPlan(Plan(launches[0]), dtype)
    return out, pre


def _memo(call: Call) -> Memo:
    layout = call.layout()
    memo = _memos.get(layout)
    if memo is None:
        memo = {}
        _memos.keep(layout, memo)
    return memo


def _forward(call: Call, out: Tensor, pre: Tensor | None) -> list[Launch]:
    down_bias, up_bias, mask = _dense(call.down_bias), _dense(call.up_bias), _dense(call.mask)
    block_out, skip, geometry = call.block_out, call.skip, geometry_of(call)
    parts, launches = tile_launch.parts("forward", call.down), []
    for part in parts:
        # Sums of several launches pass through float32; the summands and the output bias join the first.
        target = out if part is parts[-1] else torch.empty(out.shape, dtype=torch.float32, device=out.device)
        launches.append(
            tile_launch.forward(
                call.x,
                call.down,
                call.up,
                down_bias,
                up_bias,
                mask,
                block_out,
                skip,
                target,
                pre,
                part,
                geometry,
                call.scale,
                call.activation,
            )
        )
        launches[-1].run()
        block_out, skip, up_bias = target, None, None
    return launches


def backward(
    call: Call, dy: Tensor, pre: Tensor, need_x: bool, need_down: bool, need_up: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor]:
    """(dx, d_down, d_up, d_pre); those not needed are None, d_pre [batch, tokens, r] is for the bias.

    d_down and d_up are float32 sums rounded to the weights' dtype, in their shapes, stored channels_last.
    """
    if need_down or need_up:  # which walk over the rows; what lies otherwise is copied once, for all launches
        dy, rows = _even_rows(dy), _even_rows(call.x)
        call = call if rows is call.x else replace(call, x=rows)
    x, down = call.x, call.down
    needs = (need_x, need_down, need_up)
    key = (call.layout(), dy.shape, dy.stride(), dy.dtype, needs, _precision(down))
    known = _backward_plans.get(key)
    d_pre, hidden = torch.empty_like(pre), torch.empty_like(pre)
    dx = torch.empty_like(x, memory_format=torch.contiguous_format) if need_x else None
    d_down = channels_last_like(down) if need_down else None
    d_up = channels_last_like(call.up) if need_up else None
    if known:
        tensors: dict[str, Any] = {
            "p_dy": dy,
            "p_x": x,
            "p_down": down,
            "p_up": call.up,
            "p_mask": call.mask,
            "p_pre": pre,
            "p_dpre": d_pre,
            "p_hidden": hidden,
            "p_dx": dx,
            "p_ddown": d_down,
            "p_dup": d_up,
        }
        if known.partial:
            tensors["p_partial"] = torch.empty(known.partial, dtype=torch.float32, device=x.device)
        for plan in known.plans:
            plan.bind(tensors).run()
        return dx, d_down, d_up, d_pre

    launches = _input_grad(call, dy, pre, d_pre, hidden, dx) if x.numel() else []
    alone, partial = len(launches) == 1, None
    if need_down or need_up:
        more, partial = _partial_sums(call, dy, hidden, d_pre, need_down, need_up)
        alone = alone and len(more) == 1
        launches += [*more, weight_grad_launch.weight_sum(partial, d_down, d_up)]
        launches[-1].run()
    if alone and _all_dense(call) and x.device.type != "meta":
        kept = _BackwardPlan(tuple(map(Plan, launches)), None if partial is None else partial.shape)
        _backward_plans.keep(key, kept)
    return dx, d_down, d_up, d_pre


def _input_grad(call: Call, dy: Tensor, pre: Tensor, d_pre: Tensor, hidden: Tensor, dx: Tensor | None) -> list[Launch]:
    """Fill d_pre, the hidden rows and dx; dx of several launches passes through float32, as in the forward."""
    parts, launches = tile_launch.parts("input_grad", call.down), []
    mask, geometry = _dense(call.mask), geometry_of(call)
    partial = target = None
    for part in parts:
        if dx is not None:
            target = dx if part is parts[-1] else torch.empty(dx.shape, dtype=torch.float32, device=dx.device)
        launches.append(
            tile_launch.input_grad(
                dy,
                call.down,
                call.up,
                mask,
                pre,
                d_pre,
                hidden,
                partial,
                target,
                part,
                geometry,
                call.scale,
                call.activation,
            )
        )
        launches[-1].run()
        partial = target
    return launches


def _partial_sums(
    call: Call, dy: Tensor, hidden: Tensor, d_pre: Tensor, need_down: bool, need_up: bool
) -> tuple[list[Launch], Tensor]:
    """The launches, and of the wanted gradients the sums [gradients, splits, taps * r, dim] float32."""
    x, down = call.x, call.down
    gradients = need_down + need_up
    together = gradients == 1 or dy.dtype == x.dtype
    split = weight_grad_launch.Split.of(dy, x, down, gradients if together else 1)
    shape = (gradients, split.splits, down.numel() // x.shape[2], x.shape[2])
    partial = torch.empty(shape, dtype=torch.float32, device=x.device)
    wanted = [(partial, need_down, need_up)] if together else [(partial[:1], True, False), (partial[1:], False, True)]
    launches = [
        weight_grad_launch.weight_grad(dy, x, down, hidden, d_pre, sums, split, geometry_of(call), for_down, for_up)
        for sums, for_down, for_up in wanted
        if split.splits
    ]
    for launch in launches:
        launch.run()
    return launches, partial


def geometry_of(call: Call) -> Geometry:
    return Geometry(call.freq_bins, call.prefix_tokens, call.time_major)


def _precision(weight: Tensor) -> str | None:
    """What float32 products depend on beside the call: PyTorch's own switch."""
    return chip.product_precision(weight.dtype) if weight.dtype == torch.float32 else None


def _dense(tensor: Tensor | None) -> Tensor | None:
    """The kernels take strides of what is as wide as the model; what is small is copied where it is not dense."""
    return None if tensor is None else tensor.contiguous()


def _all_dense(call: Call) -> bool:
    return all(t is None or t.is_contiguous() for t in (call.down_bias, call.up_bias, call.mask))


def _even_rows(tensor: Tensor) -> Tensor:
    """[batch, tokens, dim] as rows with one stride, copied where clips or channels lie otherwise."""
    batch, tokens, _ = tensor.shape
    clip, token, channel = tensor.stride()
    return tensor if channel == 1 and (batch == 1 or clip == tokens * token) else tensor.contiguous()
