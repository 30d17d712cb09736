"""What a launch of the forward or the input gradient is told: to run it, to compile it without a GPU, to time it."""

from dataclasses import replace
from math import gcd
from typing import Any

import torch
import triton
from torch import Tensor

from fastloaa.kernels import chip
from fastloaa.kernels.backward import loaa_input_grad_kernel
from fastloaa.kernels.configs import Setting, settings, widest
from fastloaa.kernels.forward import loaa_forward_kernel
from fastloaa.kernels.launchable import Launch
from fastloaa.kernels.tile import Geometry, Lines, Tiling, is_long, rows_width


def parts(kernel: str, down: Tensor) -> list[slice]:
    """The hidden rows of each launch of a kernel: as few and as equal parts as one launch allows.

    Of several, each begins at a multiple of 8 rows, so that its weights can be read in pieces of 16 bytes.
    """
    rank, _, kf, kt = down.shape
    columns = widest(kernel, chip.capability(down.device), down.element_size())
    rows = min(columns // (kf * kt), columns // 2)
    if rank <= rows:
        return [slice(0, rank)]
    size = triton.cdiv(triton.cdiv(rank, triton.cdiv(rank, rows // 8 * 8)), 8) * 8
    return [slice(start, min(start + size, rank)) for start in range(0, rank, size)]


def forward(
    x: Tensor,
    down: Tensor,
    up: Tensor,
    down_bias: Tensor | None,
    up_bias: Tensor | None,
    mask: Tensor | None,
    block_out: Tensor | None,
    skip: Tensor | None,
    out: Tensor,
    pre: Tensor | None,
    part: slice,
    geometry: Geometry,
    scale: float,
    activation: str,
    chosen: Setting | None = None,
) -> Launch:
    """Forward of one part of the hidden rows. Whole tensors go in; `chosen` is the frozen setting where None."""
    return _tile(
        "forward",
        loaa_forward_kernel,
        x,
        down,
        up,
        part,
        geometry,
        scale,
        chosen,
        out,
        tensors={
            "p_x": x,
            "p_down_bias": None if down_bias is None else down_bias[part],
            "p_up_bias": up_bias,
            "p_mask": None if mask is None else mask[..., part],
            "p_block": block_out,
            "p_skip": skip,
            "p_out": out,
            "p_pre": None if pre is None else pre[..., part],
        },
        strides={"x": x, "block": block_out, "skip": skip},
        constants={
            "ACT": activation,
            "DOWN_BIAS": down_bias is not None,
            "UP_BIAS": up_bias is not None,
            "MASK": mask is not None,
            "BLOCK": block_out is not None,
            "SKIP": skip is not None,
            "KEEP_PRE": pre is not None,
        },
    )


def input_grad(
    dy: Tensor,
    down: Tensor,
    up: Tensor,
    mask: Tensor | None,
    pre: Tensor,
    d_pre: Tensor,
    hidden: Tensor,
    partial: Tensor | None,
    dx: Tensor | None,
    part: slice,
    geometry: Geometry,
    scale: float,
    activation: str,
    chosen: Setting | None = None,
) -> Launch:
    """d_pre and, where it is not None, dx of one part of the hidden rows."""
    return _tile(
        "input_grad",
        loaa_input_grad_kernel,
        dy,
        down,
        up,
        part,
        geometry,
        scale,
        chosen,
        dx,
        tensors={
            "p_dy": dy,
            "p_mask": None if mask is None else mask[..., part],
            "p_pre": pre[..., part],
            "p_dpre": d_pre[..., part],
            "p_hidden": hidden[..., part],
            "p_partial": partial,
            "p_dx": dx,
        },
        strides={"dy": dy},
        constants={
            "ACT": activation,
            "MASK": mask is not None,
            "PARTIAL": partial is not None,
            "INPUT_GRAD": dx is not None,
        },
    )


def _tile(
    name: str,
    kernel: Any,
    rows: Tensor,
    down: Tensor,
    up: Tensor,
    part: slice,
    geometry: Geometry,
    scale: float,
    chosen: Setting | None,
    target: Tensor | None,
    tensors: dict[str, Tensor | None],
    strides: dict[str, Tensor | None],
    constants: dict[str, Any],
) -> Launch:
    """What the two kernels that hold tiles of tokens (forward and input gradient) have in common."""
    batch, tokens, dim = rows.shape
    hidden_width, _, kf, kt = down.shape
    down, up = down[part], up[:, part]
    taps, rank = kf * kt, down.shape[0]
    padded_rank, padded_columns = packed(rank, taps)
    lines = geometry.lines(tokens, (kf, kt))
    if chosen is None:
        summands = [tensors.get(name) for name in ("p_block", "p_skip", "p_partial")]
        summand_bytes = sum(summand.element_size() for summand in summands if summand is not None)
        wide_bytes = max(rows.element_size(), triton.cdiv(summand_bytes, 2))
        tried = settings(
            name, chip.capability(rows.device), down.element_size(), wide_bytes, columns(rank, taps), taps, rank
        )
        chosen = busiest(tried, lines, batch, taps, chip.multiprocessors(rows.device))
        if dim <= max(chosen.block_channels, chosen.block_first_channels) and down.dtype == torch.float32:
            # A loop of a single trip is none, and then ptxas spoils addresses of wgmma's float32 operands
            # (docs/kernels.md, "Hazards"). Tiles of 32 tokens are multiplied by other instructions.
            chosen = replace(chosen, block_tokens=32, warps=4)
    tiling = Tiling.of(lines, batch, taps, chosen.block_tokens)
    divisor = dim & -dim  # the largest power of two that divides them
    width = rows_width(rank, padded_columns)
    whole = target is not None and tiling.segments == 1 and width <= dim
    precision = chip.product_precision(down.dtype)
    return Launch(
        kernel,
        (tiling.tiles,),
        {
            **tensors,
            "p_down": down,
            "p_up": up,
            "p_rows": target if whole or taps == 1 else down.new_empty(tiling.tiles * chosen.block_tokens, width),
            **{name: value for key, tensor in strides.items() for name, value in _strides(key, tensor).items()},
            **_weight_strides(down, up),
            "scale": scale,
            **_grid(lines, batch),
            "patch_tiles": tiling.patch_tiles,
            "per_tile": tiling.per_tile,
            "window": tiling.window,
            "halo": tiling.halo,
            "segments": tiling.segments,
            "whole": int(whole),
            "D": dim,
            "R": rank,
            "TAPS": taps,
            "HIDDEN": hidden_width,
            "RP": padded_rank,
            "KP": padded_columns,
            "BT": chosen.block_tokens,
            **_pieces(rank),
            "VECTOR": gcd(rank, hidden_width, 8),
            "WIDTH": width,
            "LONG": is_long(
                chosen.block_tokens,
                [rows, *(tensor for tensor in strides.values() if tensor is not None)],
                tokens * max(dim, hidden_width),
            ),
            "BK": min(chosen.block_first_channels, divisor),
            "BD": min(chosen.block_channels, divisor),
            "STAGES": chosen.stages,
            "PRECISION": precision,
            **constants,
        },
        chosen,
    )


def busiest(tried: tuple[Setting, ...], lines: Lines, batch: int, taps: int, processors: int) -> Setting:
    """The setting of the largest tile that leaves at most an eighth of the multiprocessors without one, else the last.

    Large tiles read the weights less often; a small batch has too few of them.
    """
    for chosen in tried:
        if 8 * Tiling.of(lines, batch, taps, chosen.block_tokens).tiles >= 7 * processors:
            return chosen
    return tried[-1]


def packed(rank: int, taps: int) -> tuple[int, int]:
    """(RP, KP): hidden rows and packed columns, padded to powers of two that tl.dot takes."""
    rows = max(16, triton.next_power_of_2(rank))
    return rows, rows if taps == 1 else max(16, triton.next_power_of_2(rank * taps))


def _pieces(rank: int) -> dict[str, int]:
    """Hidden rows are activated in pieces, whose values fit in registers; the last is as narrow as a power of two."""
    piece = min(32, triton.next_power_of_2(rank))
    pieces = triton.cdiv(rank, piece)
    return {"PIECES": pieces, "PIECE": piece, "LAST": triton.next_power_of_2(rank - (pieces - 1) * piece)}


def columns(rank: int, taps: int) -> int:
    """By which a launch on `rank` hidden rows finds its setting: packed columns, or twice the rows if that is more."""
    padded_rank, padded_columns = packed(rank, taps)
    return max(padded_columns, 2 * padded_rank)


def _strides(prefix: str, tensor: Tensor | None) -> dict[str, int]:
    clip, token, channel = (0, 0, 0) if tensor is None else tensor.stride()
    return {f"stride_{prefix}_clip": clip, f"stride_{prefix}_token": token, f"stride_{prefix}_channel": channel}


def _weight_strides(down: Tensor, up: Tensor) -> dict[str, int]:
    """Strides over (row, channel, tap). A 1-D kernel's taps lie along whichever kernel axis is longer than one."""
    tap_axis = 2 if down.shape[2] > 1 else 3
    single = down.shape[2:].numel() == 1  # its stride is any number, which would hide that rows are aligned
    return {
        "stride_down_row": down.stride(0),
        "stride_down_channel": down.stride(1),
        "stride_down_tap": 0 if single else down.stride(tap_axis),
        "stride_up_channel": up.stride(0),
        "stride_up_row": up.stride(1),
        "stride_up_tap": 0 if single else up.stride(tap_axis),
    }


def _grid(lines: Lines, batch: int) -> dict[str, int]:
    return {
        "batch": batch,
        "line_count": lines.count,
        "line_length": lines.length,
        "line_stride": lines.line_stride,
        "position_stride": lines.position_stride,
        "prefix": lines.prefix,
        "tokens": lines.tokens,
    }
