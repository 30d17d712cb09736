"""The ops on CPU tensors: PyTorch's operations under the same names, or the kernels under Triton's interpreter."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fastloaa.grid import TokenGrid
from fastloaa.kernels import interpreted, launch, widened_launch
from fastloaa.kernels.call import Call, channels_last_like
from fastloaa.ops import gemm_shift
from fastloaa.ops.activations import ACTIVATIONS
from fastloaa.ops.library import backward_result, forward_result, loaa_backward, loaa_forward
from fastloaa.ops.shifts import fold, offsets, unfold
from fastloaa.ops.widened import widened_op


@loaa_forward.register_kernel("cpu")
def _forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    *flat, keep_pre = arguments
    call = Call(*flat)
    if interpreted.INTERPRETED:
        return forward_result(*launch.forward(call, keep_pre))
    branch = replace(call, x=call.x.to(call.down.dtype), block_out=None, skip=None)
    out, pre = gemm_shift.forward(branch)
    for summand in call.summands:
        out = out + summand
    return forward_result(out, pre if keep_pre else None)


@loaa_backward.register_kernel("cpu")
def _backward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dy, pre, *flat, need_x, need_down, need_up = arguments
    call = Call(*flat)
    if interpreted.INTERPRETED:
        return backward_result(call, launch.backward(call, dy, pre, need_x, need_down, need_up))
    narrow = replace(call, x=call.x.to(call.down.dtype))
    d_x, d_down, d_up, _, d_pre = gemm_shift.backward(
        narrow, dy.to(call.down.dtype), pre, need_x, need_down, need_up, True
    )
    assert d_pre is not None
    # The fake promises these layouts and dtypes, whatever the products came in.
    gradients = (
        None if d_x is None else d_x.to(call.x.dtype).contiguous(),
        None if d_down is None else channels_last_like(call.down).copy_(d_down),
        None if d_up is None else channels_last_like(call.up).copy_(d_up),
        d_pre.contiguous(),
    )
    return backward_result(call, gradients)


@widened_op.register_kernel("cpu")
def _widened(
    buffer: Tensor,
    start: int,
    rank: int,
    kf: int,
    kt: int,
    freq_bins: int,
    prefix_tokens: int,
    time_major: bool,
    activation: str,
    wide_activation: str,
) -> None:
    if interpreted.INTERPRETED:
        settings = (freq_bins, prefix_tokens, time_major, activation, wide_activation)
        return widened_launch.run(buffer, start, rank, kf, kt, *settings)
    grid = TokenGrid.from_tokens(buffer.shape[1], freq_bins, prefix_tokens, "time" if time_major else "freq")
    taps = offsets(kf, kt, grid)
    columns = buffer[..., start : start + len(taps) * rank].unflatten(2, (len(taps), rank))
    pre = fold(columns.to(torch.promote_types(buffer.dtype, torch.float32)), grid, taps)
    columns.copy_(unfold(ACTIVATIONS[activation].forward(pre), grid, taps))
    if wide_activation:
        ACTIVATIONS[wide_activation].overwrite(buffer[..., :start])
