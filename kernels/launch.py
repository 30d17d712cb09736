"""From tensors to kernel launches: shapes, strides, settings."""

from dataclasses import dataclass
from typing import Any

import torch
import triton
from fastloaa.kernels.backward import loaa_input_grad_kernel, loaa_weight_grad_kernel
from fastloaa.kernels.configs import MAX_COLUMNS, Setting, setting
from fastloaa.kernels.forward import loaa_forward_kernel
from fastloaa.kernels.tile import Lines, Tiling
from torch import Tensor


@dataclass(frozen=True)
class Geometry:
    """The grid as the kernels need it, integers only."""

    freq_bins: int
    prefix_tokens: int
    time_major: bool

    def lines(self, tokens: int, kernel: tuple[int, int]) -> Lines:
        time_steps = (tokens - self.prefix_tokens) // self.freq_bins
        return Lines.along(kernel, self.freq_bins, time_steps, self.prefix_tokens, self.time_major)


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

    x and summands [batch, tokens, dim] with any strides, down [r, dim, kf, kt], up [dim, r, kf, kt] of one dtype,
    mask dense [batch, tokens, r]. x may be wider than the weights' dtype: it is rounded as it is read.
    """
    batch, tokens, dim = x.shape
    rank, _, kf, kt = down.shape
    out = x.new_empty(batch, tokens, dim, dtype=result_dtype(down, block_out, skip))
    pre = x.new_empty(batch, tokens, rank, dtype=down.dtype) if keep_pre else x.new_empty(0, dtype=down.dtype)
    if not out.numel():
        return out, pre
    parts = hidden_parts(rank, kf * kt)
    partial: Tensor | None = None
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        # Sums of several launches pass through float32, the summands join the first.
        target = out if last else x.new_empty(batch, tokens, dim, dtype=torch.float32)
        _launch_tile(
            loaa_forward_kernel,
            x,
            down,
            part,
            geometry,
            tensors={
                "p_x": x,
                "p_down_bias": None if down_bias is None else down_bias[part],
                "p_up_bias": up_bias if index == 0 else None,
                "p_mask": None if mask is None else mask[..., part],
                "p_block": block_out if index == 0 else partial,
                "p_skip": skip if index == 0 else None,
                "p_out": target,
                "p_pre": pre[..., part] if keep_pre else None,
            },
            weights=(down, up),
            strides={"x": x, "block": block_out if index == 0 else partial, "skip": skip if index == 0 else None},
            constants={
                "ACT": activation,
                "DOWN_BIAS": down_bias is not None,
                "UP_BIAS": up_bias is not None and index == 0,
                "MASK": mask is not None,
                "BLOCK": partial is not None or block_out is not None,
                "SKIP": skip is not None and index == 0,
                "KEEP_PRE": keep_pre,
            },
            scale=scale,
        )
        partial = target
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
    rank, dim, kf, kt = down.shape
    d_pre = torch.empty_like(pre)
    dx = x.new_empty(x.shape if need_x else (0,))
    if x.numel():
        _input_grad(dy, x, down, up, mask, pre, d_pre, dx, geometry, scale, activation, need_x)
    d_down = channels_last_like(down) if need_down else down.new_empty(0)
    d_up = channels_last_like(up) if need_up else up.new_empty(0)
    if need_down or need_up:
        sums = _weight_grads(dy, x, down, mask, pre, d_pre, geometry, scale, activation, need_down, need_up)
        taps = (kf, kt, rank, dim)
        if need_down:
            d_down.copy_(sums[0].view(taps).permute(2, 3, 0, 1))
        if need_up:
            d_up.copy_(sums[1].view(taps).permute(3, 2, 0, 1))
    return dx, d_down, d_up, d_pre


def result_dtype(weight: Tensor, *summands: Tensor | None) -> torch.dtype:
    """The dtype that adding the summands to a branch in the weights' dtype gives."""
    dtype = weight.dtype
    for summand in summands:
        dtype = dtype if summand is None else torch.promote_types(dtype, summand.dtype)
    return dtype


def channels_last_like(weight: Tensor) -> Tensor:
    """An empty tensor of the weight's shape in the order in memory that GEMMs want."""
    return torch.empty(weight.shape, dtype=weight.dtype, device=weight.device, memory_format=torch.channels_last)


def hidden_parts(rank: int, taps: int) -> list[slice]:
    """The hidden rows of each launch: as few and as equal parts as `MAX_COLUMNS` packed columns allow."""
    launches = triton.cdiv(rank * taps, MAX_COLUMNS)
    size = triton.cdiv(rank, launches)
    while size * taps > MAX_COLUMNS:
        size -= 1
    return [slice(start, min(start + size, rank)) for start in range(0, rank, size)]


def block_channels(dim: int, at_most: int) -> int:
    """The largest power of two up to `at_most` that divides the channels."""
    return min(at_most, dim & -dim)


def packed(rank: int, taps: int) -> tuple[int, int]:
    """(RP, KP): hidden rows and packed columns, padded to powers of two that tl.dot takes."""
    rows = max(16, triton.next_power_of_2(rank))
    return rows, rows if taps == 1 else max(16, triton.next_power_of_2(rank * taps))


def precisions(dtype: torch.dtype) -> tuple[str, str]:
    """(of the products, of the shifted sums) as tl.dot names them; float32 follows PyTorch's own TF32 switch."""
    if dtype == torch.float32 and not torch.backends.cuda.matmul.allow_tf32:
        return "tf32x3", "tf32x3"
    return "tf32", "tf32"


def capability(device: torch.device) -> int:
    """80, 90, ...; under the interpreter, where there is no chip, 90."""
    if device.type != "cuda":
        return 90
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def _strides(prefix: str, tensor: Tensor | None) -> dict[str, int]:
    clip, token, channel = (0, 0, 0) if tensor is None else tensor.stride()
    return {f"stride_{prefix}_clip": clip, f"stride_{prefix}_token": token, f"stride_{prefix}_channel": channel}


def _weight_strides(down: Tensor, up: Tensor) -> dict[str, int]:
    """Strides over (row, channel, tap). A 1-D kernel's taps lie along whichever kernel axis is longer than one."""
    tap_axis = 2 if down.shape[2] > 1 else 3
    return {
        "stride_down_row": down.stride(0),
        "stride_down_channel": down.stride(1),
        "stride_down_tap": down.stride(tap_axis),
        "stride_up_channel": up.stride(0),
        "stride_up_row": up.stride(1),
        "stride_up_tap": up.stride(tap_axis),
    }


def _grid_arguments(lines: Lines, batch: int) -> dict[str, int]:
    return {
        "batch": batch,
        "line_count": lines.count,
        "line_length": lines.length,
        "line_stride": lines.line_stride,
        "position_stride": lines.position_stride,
        "prefix": lines.prefix,
        "tokens": lines.tokens,
    }


def _launch_tile(
    kernel: Any,
    like: Tensor,
    down: Tensor,
    part: slice,
    geometry: Geometry,
    tensors: dict[str, Tensor | None],
    weights: tuple[Tensor, Tensor],
    strides: dict[str, Tensor | None],
    constants: dict[str, Any],
    scale: float,
) -> None:
    """Launch a kernel of the tile form (forward or input gradient) on one part of the hidden rows."""
    batch, tokens, dim = like.shape
    kernel_size = (down.shape[2], down.shape[3])
    taps, rank = kernel_size[0] * kernel_size[1], part.stop - part.start
    rows, columns = packed(rank, taps)
    chosen = setting("tile", capability(like.device), down.element_size(), columns)
    lines = geometry.lines(tokens, kernel_size)
    tiling = Tiling.of(lines, batch, taps, chosen.block_tokens)
    part_down, part_up = weights[0][part], weights[1][:, part]
    product, shifted = precisions(down.dtype)
    block = block_channels(dim, chosen.block_channels)
    with _on(like):
        kernel[(tiling.tiles,)](
            **tensors,
            p_down=part_down,
            p_up=part_up,
            **{name: value for key, tensor in strides.items() for name, value in _strides(key, tensor).items()},
            **_weight_strides(part_down, part_up),
            scale=scale,
            hidden_width=down.shape[0],
            **_grid_arguments(lines, batch),
            patch_tiles=tiling.patch_tiles,
            per_tile=tiling.per_tile,
            window=tiling.window,
            halo=tiling.halo,
            segments=tiling.segments,
            D=dim,
            R=rank,
            TAPS=taps,
            RP=rows,
            KP=columns,
            BT=chosen.block_tokens,
            BK=block,
            BD=block,
            PRECISION=product,
            FOLD_PRECISION=shifted,
            **constants,
            **_compile_options(chosen),
        )


def _input_grad(
    dy: Tensor,
    x: Tensor,
    down: Tensor,
    up: Tensor,
    mask: Tensor | None,
    pre: Tensor,
    d_pre: Tensor,
    dx: Tensor,
    geometry: Geometry,
    scale: float,
    activation: str,
    need_x: bool,
) -> None:
    parts = hidden_parts(down.shape[0], down.shape[2] * down.shape[3])
    partial: Tensor | None = None
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        target = dx if last or not need_x else torch.empty(x.shape, dtype=torch.float32, device=x.device)
        _launch_tile(
            loaa_input_grad_kernel,
            x,
            down,
            part,
            geometry,
            tensors={
                "p_dy": dy,
                "p_mask": None if mask is None else mask[..., part],
                "p_pre": pre[..., part],
                "p_dpre": d_pre[..., part],
                "p_partial": partial,
                "p_dx": target,
            },
            weights=(down, up),
            strides={"dy": dy},
            constants={
                "ACT": activation,
                "MASK": mask is not None,
                "PARTIAL": partial is not None,
                "INPUT_GRAD": need_x,
            },
            scale=scale,
        )
        partial = target if need_x else None


def _weight_grads(
    dy: Tensor,
    x: Tensor,
    down: Tensor,
    mask: Tensor | None,
    pre: Tensor,
    d_pre: Tensor,
    geometry: Geometry,
    scale: float,
    activation: str,
    need_down: bool,
    need_up: bool,
) -> tuple[Tensor, Tensor]:
    """Both weight gradients [taps * r, dim] float32, tap-major: partial sums by one launch, added in a fixed order."""
    batch, tokens, dim = x.shape
    rank, _, kf, kt = down.shape
    columns = rank * kf * kt
    chosen = setting("weight_grad", capability(x.device), down.element_size(), min(MAX_COLUMNS, columns))
    block_columns = min(128, max(16, triton.next_power_of_2(columns)))
    block = min(chosen.block_channels, triton.next_power_of_2(dim))
    blocks = triton.cdiv(dim, block) * triton.cdiv(columns, block_columns)
    splits, chunk = split_tokens(batch * tokens, blocks, chosen.block_tokens, x.device)
    shape = (splits, columns, dim)
    empty = x.new_empty(0, dtype=torch.float32)
    d_down = x.new_empty(shape, dtype=torch.float32) if need_down else empty
    d_up = x.new_empty(shape, dtype=torch.float32) if need_up else empty
    if splits:
        with _on(x):
            loaa_weight_grad_kernel[(splits, triton.cdiv(dim, block), triton.cdiv(columns, block_columns))](
                p_x=x,
                p_dy=dy,
                p_mask=mask,
                p_pre=pre,
                p_dpre=d_pre,
                p_ddown=d_down,
                p_dup=d_up,
                **_strides("x", x),
                **_strides("dy", dy),
                scale=scale,
                **_grid_arguments(geometry.lines(tokens, (kf, kt)), batch),
                chunk=chunk,
                D=dim,
                R=rank,
                TAPS=kf * kt,
                BM=chosen.block_tokens,
                BD=block,
                BC=block_columns,
                ACT=activation,
                MASK=mask is not None,
                DOWN=need_down,
                UP=need_up,
                PRECISION=precisions(down.dtype)[0],
                **_compile_options(chosen),
            )
    return d_down.sum(0), d_up.sum(0)


def split_tokens(rows: int, blocks: int, block_tokens: int, device: torch.device) -> tuple[int, int]:
    """(splits, tokens of each): enough programs for every multiprocessor twice, each with whole blocks of tokens."""
    processors = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4
    wanted = max(1, 2 * processors // blocks)
    chunk = triton.cdiv(triton.cdiv(rows, wanted), block_tokens) * block_tokens
    return (triton.cdiv(rows, chunk), chunk) if rows else (0, 0)


def _compile_options(chosen: Setting) -> dict[str, int]:
    return {"num_warps": chosen.warps, "num_stages": chosen.stages}


def _on(tensor: Tensor) -> Any:
    """Triton launches on the current device, which need not be the tensor's."""
    return torch.cuda.device_of(tensor)
