"""The "torch" backend: one GEMM each way and shifted sums between them, on any device.

A convolution over tokens with t taps is one GEMM to t*r columns followed by a sum of r-wide rows shifted along the
grid (`fold`); the transposed order (`unfold`, then one GEMM) gives the up-projection. Nothing as wide as the model is
ever copied, so x is read once. The backward pass is the same two shapes with the offsets negated.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastloaa.activations import ACTIVATIONS
from fastloaa.grid import TokenGrid
from fastloaa.normed import NormedFrom, recompute
from fastloaa.products import by_onednn, product
from fastloaa.shifts import fold, negated, offsets, unfold
from fastloaa.tracing import transformed


def loaa_gemm_shift(
    x: Tensor,
    down_weight: Tensor,
    up_weight: Tensor,
    grid: TokenGrid,
    *,
    down_bias: Tensor | None = None,
    up_bias: Tensor | None = None,
    hidden_mask: Tensor | None = None,
    scale: float = 1.0,
    activation: str = "gelu",
    block_out: Tensor | None = None,
    skip: Tensor | None = None,
    normed_from: NormedFrom | None = None,
) -> Tensor:
    """The branch plus the summands that are given; shapes as in `loaa_reference`, summands [batch, tokens, dim].

    All tensors have x's dtype and device, but for those of `normed_from`, from which the backward pass recomputes x.
    """
    tensors = (x, down_weight, up_weight, down_bias, up_bias, hidden_mask, block_out, skip)
    wants_gradient = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    if wants_gradient and not transformed():
        residual, *norm = normed_from or (None, None, None, 0.0)
        return _GemmShift.apply(*map(_alias, tensors), grid, scale, activation, _alias(residual), *norm)
    return forward(*tensors, grid, scale, activation)[0]


def _alias(tensor: Tensor | None) -> Tensor | None:
    """The same tensor as another object for Dynamo, which loses gradients of one that a Function is given twice.

    The residual stream is both `skip` and what x is normed from. See pytorch/pytorch#181146, mended after 2.11.
    """
    return tensor.view_as(tensor) if tensor is not None and torch.compiler.is_compiling() else tensor


class _GemmShift(torch.autograd.Function):
    """Keeps only the r-wide pre-activation beside its inputs, and recomputes the hidden rows from it.

    Of x it keeps what x is normed from, where that is known. A second derivative is autograd's own, of the backward
    pass: there the pre-activation is computed again, as a function of the inputs.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, down_weight: Tensor, up_weight: Tensor, *rest: Any) -> Tensor:
        *branch, residual, norm_weight, norm_bias, eps = rest
        down_bias, _, hidden_mask, _, _, *settings = branch
        out, pre = forward(x, down_weight, up_weight, *branch)
        ctx.settings, ctx.norm_eps, ctx.x_dtype = settings, eps, x.dtype
        kept = x if residual is None else None
        weights = (down_weight, up_weight, down_bias, hidden_mask)
        ctx.save_for_backward(kept, residual, norm_weight, norm_bias, *weights, pre)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        need_x, need_down, need_up, need_down_bias, need_up_bias, need_mask, need_block, need_skip = (
            ctx.needs_input_grad[:8]
        )
        # Read once: activation checkpointing recomputes them at each access.
        x, residual, norm_weight, norm_bias, down_weight, up_weight, down_bias, hidden_mask, pre = ctx.saved_tensors
        grid, scale, activation = ctx.settings
        if x is None:
            x = recompute(NormedFrom(residual, norm_weight, norm_bias, ctx.norm_eps), ctx.x_dtype)
        if torch.is_grad_enabled():  # create_graph=True
            pre = _project_down(x, down_weight, down_bias, grid)
        needs = (need_x, need_down, need_up, need_down_bias or need_mask)
        d_x, d_down, d_up, d_hidden, d_pre = backward(
            grad, x, down_weight, up_weight, hidden_mask, pre, grid, scale, activation, *needs
        )
        return (
            d_x,
            d_down,
            d_up,
            d_pre.sum((0, 1)) if need_down_bias and d_pre is not None else None,
            grad.sum((0, 1)) * scale if need_up_bias else None,
            d_hidden * ACTIVATIONS[activation].forward(pre) if need_mask and d_hidden is not None else None,
            # The summands' gradient is the incoming one itself: passed through, never copied.
            grad if need_block else None,
            grad if need_skip else None,
            *(None,) * 7,
        )


def forward(
    x: Tensor,
    down_weight: Tensor,
    up_weight: Tensor,
    down_bias: Tensor | None,
    up_bias: Tensor | None,
    hidden_mask: Tensor | None,
    block_out: Tensor | None,
    skip: Tensor | None,
    grid: TokenGrid,
    scale: float,
    activation: str,
) -> tuple[Tensor, Tensor]:
    """(branch + summands [B, N, dim], pre-activation [B, N, r])."""
    pre = _project_down(x, down_weight, down_bias, grid)
    return _project_up(pre, up_weight, up_bias, hidden_mask, scale, activation, grid, block_out, skip), pre


def backward(
    grad: Tensor,
    x: Tensor,
    down_weight: Tensor,
    up_weight: Tensor,
    hidden_mask: Tensor | None,
    pre: Tensor,
    grid: TokenGrid,
    scale: float,
    activation: str,
    need_x: bool,
    need_down: bool,
    need_up: bool,
    need_hidden: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of (x, down_weight, up_weight, hidden rows before the mask, pre-activation), None if not needed."""
    dim, rank, kf, kt = up_weight.shape
    taps = offsets(kf, kt, grid)
    rows = grad.reshape(-1, dim)  # [M, dim], M = batch * tokens

    d_up = None
    if need_up:
        hidden = _hidden(pre, hidden_mask, scale, activation)
        unfolded = unfold(hidden, grid, taps).reshape(-1, kf * kt * rank)
        # This product is a sixth faster with the narrow matrix first.
        d_up = product(unfolded.t(), rows.t()).view(kf, kt, rank, dim).permute(3, 2, 0, 1)
    if not (need_x or need_down or need_hidden):
        return None, None, d_up, None, None

    d_unfolded = _taps(rows, _up_matrix(up_weight).t(), pre.shape[:2], kf * kt)
    d_hidden = fold(d_unfolded, grid, negated(taps))
    if scale != 1.0:
        d_hidden *= scale
    masked = d_hidden if hidden_mask is None else d_hidden * hidden_mask
    d_pre = ACTIVATIONS[activation].backward(masked, pre)

    d_x = d_down = None
    if need_x or need_down:
        d_folded = unfold(d_pre, grid, negated(taps)).reshape(-1, kf * kt * rank)
        if need_x:
            d_x = product(d_folded, _down_matrix(down_weight).t()).view_as(x)
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


def _project_up(
    pre: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    hidden_mask: Tensor | None,
    scale: float,
    activation: str,
    grid: TokenGrid,
    block_out: Tensor | None,
    skip: Tensor | None,
) -> Tensor:
    """Pre-activation [B, N, r] -> branch + summands [B, N, dim]."""
    dim, rank, kf, kt = weight.shape
    hidden = _hidden(pre, hidden_mask, scale, activation)
    unfolded = unfold(hidden, grid, offsets(kf, kt, grid)).reshape(-1, kf * kt * rank)
    matrix = _up_matrix(weight)
    summands = [summand for summand in (block_out, skip) if summand is not None]
    if transformed():
        out = product(unfolded, matrix).view(*pre.shape[:2], dim)
        return sum((*summands, *([] if bias is None else [bias * scale])), start=out)
    if not summands or by_onednn(unfolded):
        out = product(unfolded, matrix).view(*pre.shape[:2], dim)
        for summand in summands:
            out += summand
    else:  # the sum rides on the product's accumulation
        total = (summands[0] if len(summands) == 1 else summands[0] + summands[1]).reshape(-1, dim)
        sum_ = torch.addmm if len(summands) == 1 else Tensor.addmm_
        out = sum_(total, unfolded, matrix.t()).view(*pre.shape[:2], dim)
    return out if bias is None else out.add_(bias if scale == 1.0 else bias * scale)


def _hidden(pre: Tensor, hidden_mask: Tensor | None, scale: float, activation: str) -> Tensor:
    """[B, N, r]; the scale is applied here, where rows are r wide, not dim wide."""
    hidden = ACTIVATIONS[activation].forward(pre)
    if hidden_mask is not None:
        hidden = hidden * hidden_mask
    return hidden if scale == 1.0 else hidden * scale


def _down_matrix(weight: Tensor) -> Tensor:
    """[r, dim, kf, kt] -> [taps * r, dim], tap-major."""
    return weight.permute(2, 3, 0, 1).flatten(0, 2)


def _up_matrix(weight: Tensor) -> Tensor:
    """[dim, r, kf, kt] -> [dim, taps * r], tap-major."""
    return weight.permute(0, 2, 3, 1).flatten(1)
