"""The ops on CPU tensors: PyTorch's operations under the same names, or the kernels under Triton's interpreter."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from fastloaa import gemm_shift
from fastloaa.activations import ACTIVATIONS
from fastloaa.grid import TokenGrid
from fastloaa.kernels import interpreted, launch, widened_launch
from fastloaa.kernels.ops import loaa_backward, loaa_forward
from fastloaa.kernels.widened_ops import widened_op
from fastloaa.shifts import fold, offsets, unfold

IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": torch.ops.aten.gelu_,
    "gelu_tanh": partial(torch.ops.aten.gelu_, approximate="tanh"),
    "relu": torch.ops.aten.relu_,
    "silu": torch.ops.aten.silu_,
}


def _grid(x: Tensor, freq_bins: int, prefix_tokens: int, time_major: bool) -> TokenGrid:
    return TokenGrid.from_tokens(x.shape[1], freq_bins, prefix_tokens, "time" if time_major else "freq")


@loaa_forward.register_kernel("cpu")
def _forward(
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
    branch = (x, down, up, down_bias, up_bias, mask)
    if interpreted.INTERPRETED:
        geometry = launch.Geometry(freq_bins, prefix_tokens, time_major)
        return launch.forward(*branch, block_out, skip, geometry, scale, activation, keep_pre)
    grid = _grid(x, freq_bins, prefix_tokens, time_major)
    out, pre = gemm_shift.forward(x.to(down.dtype), *branch[1:], None, None, grid, scale, activation)
    for summand in (block_out, skip):
        out = out if summand is None else out + summand
    return out, pre if keep_pre else pre.new_empty(0)


@loaa_backward.register_kernel("cpu")
def _backward(
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
    if interpreted.INTERPRETED:
        geometry = launch.Geometry(freq_bins, prefix_tokens, time_major)
        return launch.backward(dy, x, down, up, mask, pre, geometry, scale, activation, need_x, need_down, need_up)
    grid = _grid(x, freq_bins, prefix_tokens, time_major)
    dtype = down.dtype
    d_x, d_down, d_up, _, d_pre = gemm_shift.backward(
        dy.to(dtype), x.to(dtype), down, up, mask, pre, grid, scale, activation, need_x, need_down, need_up, True
    )
    assert d_pre is not None
    # The fake promises these layouts and dtypes, whatever the products came in.
    return (
        x.new_empty(0) if d_x is None else d_x.to(x.dtype).contiguous(),
        down.new_empty(0) if d_down is None else launch.channels_last_like(down).copy_(d_down),
        up.new_empty(0) if d_up is None else launch.channels_last_like(up).copy_(d_up),
        d_pre.contiguous(),
    )


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
    grid = _grid(buffer, freq_bins, prefix_tokens, time_major)
    taps = offsets(kf, kt, grid)
    columns = buffer[..., start : start + len(taps) * rank].unflatten(2, (len(taps), rank))
    pre = fold(columns.to(torch.promote_types(buffer.dtype, torch.float32)), grid, taps)
    columns.copy_(unfold(ACTIVATIONS[activation].forward(pre), grid, taps))
    if wide_activation:
        IN_PLACE[wide_activation](buffer[..., :start])
