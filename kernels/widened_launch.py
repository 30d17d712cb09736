"""Launching the pass between a merged model's widened GEMMs, and what stands in its way."""

from collections.abc import Collection
from math import gcd

import torch
import triton
from torch import Tensor

from fastloaa.kernels import interpreted
from fastloaa.kernels.chip import capability
from fastloaa.kernels.configs import Setting
from fastloaa.kernels.elementwise import ACTIVATIONS
from fastloaa.kernels.launchable import Launch
from fastloaa.kernels.tile import Geometry, Lines, Tiling, is_long
from fastloaa.kernels.widened import widened_activation_kernel

LONGEST_LINE = 2048
"""Patches along the kernel's axis: a program holds whole lines, so that none overwrites what another reads."""


def obstacle(
    buffer: Tensor, kf: int, kt: int, freq_bins: int, prefix_tokens: int, activations: Collection[str] = ()
) -> str | None:
    """Why the kernel cannot run on a buffer [batch, tokens, width] with such activations, None if it can."""
    if unknown := sorted({*activations} - {"", *ACTIVATIONS}):
        return f"activation {unknown[0]!r} has no formula in the kernels"
    line = freq_bins if kf > 1 else (buffer.shape[1] - prefix_tokens) // freq_bins
    if min(kf, kt) > 1 or max(kf, kt) > 7:
        return f"kernel ({kf}, {kt}) is not one-dimensional of at most 7 taps"
    if max(kf, kt) > 1 and line > LONGEST_LINE:
        return f"lines of {line} patches are longer than {LONGEST_LINE}"
    if buffer.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"{buffer.dtype} is not float32, float16 or bfloat16"
    if buffer.stride(2) != 1:
        return f"columns lie {buffer.stride(2)} elements apart in memory, not 1"
    if buffer.device.type == "cpu" and (reason := interpreted.obstacle(buffer.dtype)):
        return reason
    if buffer.device.type == "cuda" and capability(buffer.device) < 80:
        return "the GPU is older than compute capability 8.0"
    return None


def run(
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
    """The pass in place; see `fastloaa.ops.widened.widened_activation_`, which checks what holds on every device.

    Raises:
        ValueError: what `obstacle` says.
    """
    reason = obstacle(buffer, kf, kt, freq_bins, prefix_tokens, (activation, wide_activation))
    if reason:
        raise ValueError(f"the kernel of widened_activation_ cannot run: {reason}; ask widened_launch.obstacle first")
    if buffer.shape[0]:
        geometry = Geometry(freq_bins, prefix_tokens, time_major)
        widened(buffer, start, rank, (kf, kt), geometry, activation, wide_activation).run()


def setting(line_length: int) -> Setting:
    """Whole lines by so few hidden rows that the addresses of all taps stay in registers."""
    block_tokens = max(128, triton.next_power_of_2(line_length))
    return Setting(block_tokens, min(8, 2048 // block_tokens), warps=min(32, block_tokens // 16), stages=1)


def widened(
    buffer: Tensor,
    start: int,
    rank: int,
    kernel: tuple[int, int],
    geometry: Geometry,
    activation: str,
    wide_activation: str,
) -> Launch:
    """One launch on both ranges of columns, or on the adapter's alone where `wide_activation` is empty."""
    batch, tokens, _ = buffer.shape
    taps = max(kernel)
    # Without neighbours every token is a line of its own.
    lines = geometry.lines(tokens, kernel) if taps > 1 else Lines(tokens, 1, 1, 1, 0)
    chosen = setting(lines.length)
    tiling = Tiling.of(lines, batch, taps, chosen.block_tokens)
    shift_programs = tiling.tiles * triton.cdiv(rank, chosen.block_channels)

    wide_columns = min(256, triton.next_power_of_2(max(start, 1)))
    wide_tokens = 256 * chosen.warps // wide_columns  # 8 elements to a thread: in 16 bits one load
    wide_programs = triton.cdiv(batch * tokens, wide_tokens) * triton.cdiv(start, wide_columns)
    vector = 16 // buffer.element_size()  # the widest load of a thread
    return Launch(
        widened_activation_kernel,
        (shift_programs + (wide_programs if wide_activation else 0),),
        {
            "p_buffer": buffer,
            "stride_clip": buffer.stride(0),
            "stride_token": buffer.stride(1),
            "batch": batch,
            "line_count": lines.count,
            "line_length": lines.length,
            "line_stride": lines.line_stride,
            "position_stride": lines.position_stride,
            "prefix": lines.prefix,
            "tokens": tokens,
            "patch_tiles": tiling.patch_tiles,
            "per_tile": tiling.per_tile,
            "shift_programs": shift_programs,
            "START": start,
            "R": rank,
            "TAPS": taps,
            "BT": chosen.block_tokens,
            "BR": chosen.block_channels,
            "BM": wide_tokens,
            "BD": wide_columns,
            "ALIGN": gcd(buffer.stride(0), buffer.stride(1), vector),
            "LONG": is_long(chosen.block_tokens, [buffer], 0),
            "ACT": activation,
            "WIDE_ACT": wide_activation,
        },
        chosen,
    )
