"""The "torch" backend: one GEMM each way and shifted sums between them, on any device.

A convolution over tokens with t taps is one GEMM to t*r columns followed by a sum of r-wide rows shifted along the
grid (`fold`); the transposed order (`unfold`, then one GEMM) gives the up-projection. Nothing as wide as the model is
ever copied, so x is read once. The backward pass is the same two shapes with the offsets negated.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastloaa.grid import TokenGrid, grid_of
from fastloaa.kernels.call import FIELDS, Call
from fastloaa.ops.activations import ACTIVATIONS
from fastloaa.ops.normed import NormedFrom, recompute
from fastloaa.ops.products import by_onednn, product
from fastloaa.ops.shifts import fold, negated, offsets, unfold
from fastloaa.ops.tracing import transformed


def loaa_gemm_shift(call: Call) -> Tensor:
    """The branch plus the summands that are given, [batch, tokens, dim].

    All tensors have x's dtype and device, but for those that x is normed from.
    """
    wants_gradient = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in call.operands())
    if wants_gradient and not transformed():
        return _GemmShift.apply(*(_alias(each) if isinstance(each, Tensor) else each for each in call.flat()))
    return forward(call)[0]


def _alias(tensor: Tensor) -> Tensor:
    """The same tensor as another object for Dynamo, which loses gradients of one that a Function is given twice.

    The residual stream is both `skip` and what x is normed from. See pytorch/pytorch#181146, mended after 2.11.
    """
    return tensor.view_as(tensor) if torch.compiler.is_compiling() else tensor


class _GemmShift(torch.autograd.Function):
    """Keeps only the r-wide pre-activation beside its inputs, and recomputes the hidden rows from it.

    Of x it keeps what x is normed from, where that is known. A second derivative is autograd's own, of the backward
    pass: there the pre-activation is computed again, as a function of the inputs.
    """

    @staticmethod
    def forward(ctx: Any, *flat: Any) -> Tensor:
        call = Call(*flat)
        out, pre = forward(call)
        ctx.settings, ctx.x_dtype = call.settings(), call.x.dtype
        kept = call.x if call.residual is None else None
        norm = (call.residual, call.norm_weight, call.norm_bias)
        ctx.save_for_backward(kept, *norm, call.down, call.up, call.down_bias, call.mask, pre)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        need_x, need_down, need_up, need_down_bias, need_up_bias, need_mask, need_block, need_skip = (
            ctx.needs_input_grad[:8]
        )
        # Read once: activation checkpointing recomputes them at each access.
        x, residual, norm_weight, norm_bias, down, up, down_bias, mask, pre = ctx.saved_tensors
        if x is None:
            x = recompute(NormedFrom(residual, norm_weight, norm_bias, ctx.settings[-1]), ctx.x_dtype)
        call = Call(x, down, up, down_bias, None, mask, None, None, None, None, None, *ctx.settings)
        if torch.is_grad_enabled():  # create_graph=True
            pre = _project_down(x, down, down_bias, grid_of(call))
        d_x, d_down, d_up, d_hidden, d_pre = backward(
            call, grad, pre, need_x, need_down, need_up, need_down_bias or need_mask
        )
        return (
            d_x,
            d_down,
            d_up,
            d_pre.sum((0, 1)) if need_down_bias and d_pre is not None else None,
            grad.sum((0, 1)) * call.scale if need_up_bias else None,
            d_hidden * ACTIVATIONS[call.activation].forward(pre) if need_mask and d_hidden is not None else None,
            # The summands' gradient is the incoming one itself: passed through, never copied.
            grad if need_block else None,
            grad if need_skip else None,
            *(None,) * (len(FIELDS) - 8),
        )


def forward(call: Call) -> tuple[Tensor, Tensor]:
    """(branch + summands [B, N, dim], pre-activation [B, N, r])."""
    grid = grid_of(call)
    pre = _project_down(call.x, call.down, call.down_bias, grid)
    return _project_up(call, pre, grid), pre


def backward(
    call: Call, grad: Tensor, pre: Tensor, need_x: bool, need_down: bool, need_up: bool, need_hidden: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of (x, down, up, hidden rows before the mask, pre-activation), None if not needed."""
    x, scale, grid = call.x, call.scale, grid_of(call)
    dim, rank, kf, kt = call.up.shape
    taps = offsets(kf, kt, grid)
    rows = grad.reshape(-1, dim)  # [M, dim], M = batch * tokens

    d_up = None
    if need_up:
        unfolded = unfold(_hidden(call, pre), grid, taps).reshape(-1, kf * kt * rank)
        # This product is a sixth faster with the narrow matrix first.
        d_up = product(unfolded.t(), rows.t()).view(kf, kt, rank, dim).permute(3, 2, 0, 1)
    if not (need_x or need_down or need_hidden):
        return None, None, d_up, None, None

    d_unfolded = _taps(rows, _up_matrix(call.up).t(), pre.shape[:2], kf * kt)
    d_hidden = fold(d_unfolded, grid, negated(taps))
    if scale != 1.0:
        d_hidden *= scale
    masked = d_hidden if call.mask is None else d_hidden * call.mask
    d_pre = ACTIVATIONS[call.activation].backward(masked, pre)

    d_x = d_down = None
    if need_x or need_down:
        d_folded = unfold(d_pre, grid, negated(taps)).reshape(-1, kf * kt * rank)
        if need_x:
            d_x = product(d_folded, _down_matrix(call.down).t()).view_as(x)
        if need_down:
            d_down = product(d_folded.t(), x.reshape(-1, dim).t()).view(kf, kt, rank, dim).permute(2, 3, 0, 1)
    return d_x, d_down, d_up, d_hidden, d_pre


def _project_down(x: Tensor, weight: Tensor, bias: Tensor | None, grid: TokenGrid) -> Tensor:
    """[B, N, dim] -> pre-activation [B, N, r]."""
    _, dim, kf, kt = weight.shape
    taps = _taps(x.reshape(-1, dim), _down_matrix(weight), x.shape[:2], kf * kt)
    pre = fold(taps, grid, offsets(kf, kt, grid))
    return pre if bias is None else pre + bias


def _taps(rows: Tensor, matrix: Tensor, sequence: torch.Size, taps: int) -> Tensor:
    """One GEMM, [M, dim] x [taps * r, dim]^T -> [B, N, taps, r].

    The columns are padded with zeros to whole vector registers: 112 of them are a seventh faster than 108 in float32.
    """
    columns = matrix.shape[0]
    padding = -columns % 16
    out = product(rows, F.pad(matrix, (0, 0, 0, padding)) if padding else matrix)
    return out[:, :columns].view(*sequence, taps, columns // taps)


def _project_up(call: Call, pre: Tensor, grid: TokenGrid) -> Tensor:
    """Pre-activation [B, N, r] -> branch + summands [B, N, dim]."""
    dim, rank, kf, kt = call.up.shape
    unfolded = unfold(_hidden(call, pre), grid, offsets(kf, kt, grid)).reshape(-1, kf * kt * rank)
    matrix, summands = _up_matrix(call.up), call.summands
    bias = call.up_bias if call.up_bias is None or call.scale == 1.0 else call.up_bias * call.scale
    if transformed():
        out = product(unfolded, matrix).view(*pre.shape[:2], dim)
        return sum((*summands, *([] if bias is None else [bias])), start=out)
    if not summands or by_onednn(unfolded):
        out = product(unfolded, matrix).view(*pre.shape[:2], dim)
        for summand in summands:
            out += summand
    else:  # the sum rides on the product's accumulation
        total = (summands[0] if len(summands) == 1 else summands[0] + summands[1]).reshape(-1, dim)
        sum_ = torch.addmm if len(summands) == 1 else Tensor.addmm_
        out = sum_(total, unfolded, matrix.t()).view(*pre.shape[:2], dim)
    return out if bias is None else out.add_(bias)


def _hidden(call: Call, pre: Tensor) -> Tensor:
    """[B, N, r]; the scale is applied here, where rows are r wide, not dim wide."""
    hidden = ACTIVATIONS[call.activation].forward(pre)
    if call.mask is not None:
        hidden = hidden * call.mask
    return hidden if call.scale == 1.0 else hidden * call.scale


def _down_matrix(weight: Tensor) -> Tensor:
    """[r, dim, kf, kt] -> [taps * r, dim], tap-major."""
    return weight.permute(2, 3, 0, 1).flatten(0, 2)


def _up_matrix(weight: Tensor) -> Tensor:
    """[dim, r, kf, kt] -> [dim, taps * r], tap-major."""
    return weight.permute(0, 2, 3, 1).flatten(1)
