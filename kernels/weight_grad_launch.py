"""What the launches of the weight gradients are told: to run them, to compile them without a GPU, to time them."""

from dataclasses import dataclass

import triton
from torch import Tensor

from fastloaa.kernels import chip
from fastloaa.kernels.configs import Setting, settings
from fastloaa.kernels.launchable import Launch
from fastloaa.kernels.tile import Geometry
from fastloaa.kernels.weight_grad import loaa_weight_grad_kernel, loaa_weight_sum_kernel


@dataclass(frozen=True)
class Split:
    """How the work on the weight gradients is dealt out: token splits x gradients x channel and column blocks."""

    splits: int
    chunk: int  # tokens of a split
    block_channels: int
    block_columns: int
    setting: Setting

    @classmethod
    def of(cls, dy: Tensor, x: Tensor, down: Tensor, gradients: int, chosen: Setting | None = None) -> "Split":
        """One program for every multiprocessor, each with whole blocks of tokens."""
        rows, dim = x.shape[0] * x.shape[1], x.shape[2]
        packed_columns = down.numel() // dim
        if chosen is None:
            wide_bytes = max(dy.element_size(), x.element_size())
            taps, capability = packed_columns // down.shape[0], chip.capability(x.device)
            chosen = settings(
                "weight_grad", capability, down.element_size(), wide_bytes, packed_columns, taps, down.shape[0]
            )[0]
        channels = min(chosen.block_channels, triton.next_power_of_2(dim))
        block_columns = min(256, max(16, triton.next_power_of_2(packed_columns)))
        blocks = gradients * triton.cdiv(dim, channels) * triton.cdiv(packed_columns, block_columns)
        wanted = max(1, chip.multiprocessors(x.device) // blocks)
        chunk = triton.cdiv(triton.cdiv(rows, wanted), chosen.block_tokens) * chosen.block_tokens
        return cls(triton.cdiv(rows, chunk) if rows else 0, chunk, channels, block_columns, chosen)


def weight_grad(
    dy: Tensor,
    x: Tensor,
    down: Tensor,
    hidden: Tensor,
    d_pre: Tensor,
    partial: Tensor,
    split: Split,
    geometry: Geometry,
    need_down: bool,
    need_up: bool,
) -> Launch:
    """Partial sums [gradients, splits, taps * r, dim] float32 of the wanted gradients, that of `down` first.

    x and dy [batch, tokens, dim] with channels side by side and tokens evenly spaced, across clips as well.
    """
    batch, tokens, dim = x.shape
    rank, _, kf, kt = down.shape
    lines = geometry.lines(tokens, (kf, kt))
    return Launch(
        loaa_weight_grad_kernel,
        (
            split.splits,
            (need_down + need_up) * triton.cdiv(dim, split.block_channels),
            triton.cdiv(rank * kf * kt, split.block_columns),
        ),
        {
            "p_x": x,
            "p_dy": dy,
            "p_hidden": hidden,
            "p_dpre": d_pre,
            "p_partial": partial,
            "stride_x_token": x.stride(1),
            "stride_dy_token": dy.stride(1),
            "rows": batch * tokens,
            "line_length": lines.length,
            "position_stride": lines.position_stride,
            "prefix": lines.prefix,
            "tokens": tokens,
            "chunk": split.chunk,
            "D": dim,
            "R": rank,
            "TAPS": kf * kt,
            "BM": split.setting.block_tokens,
            "BD": split.block_channels,
            "BC": split.block_columns,
            "STAGES": split.setting.stages,
            "DOWN": need_down,
            "UP": need_up,
            "PRECISION": chip.product_precision(down.dtype),
        },
        split.setting,
    )


def weight_sum(partial: Tensor, d_down: Tensor | None, d_up: Tensor | None) -> Launch:
    """Add up what `weight_grad` left: into d_down [r, dim, kf, kt] and d_up [dim, r, kf, kt], both channels_last."""
    gradients, splits, columns, dim = partial.shape
    weight = d_up if d_down is None else d_down
    assert weight is not None
    rank = columns // (weight.shape[2] * weight.shape[3])
    chosen = Setting(block_tokens=16, block_channels=64, warps=4, stages=1)
    return Launch(
        loaa_weight_sum_kernel,
        (triton.cdiv(columns, chosen.block_tokens), triton.cdiv(dim, chosen.block_channels), gradients),
        {
            "p_partial": partial,
            "p_ddown": d_down,
            "p_dup": d_up,
            "splits": splits,
            "D": dim,
            "R": rank,
            "TAPS": columns // rank,
            "BC": chosen.block_tokens,
            "BD": chosen.block_channels,
            "DOWN": d_down is not None,
            "UP": d_up is not None,
        },
        chosen,
    )
