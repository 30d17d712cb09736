"""What the one-launch kernels share: which tokens a program holds, and how rows move along the convolution axis.

A program holds `BT` tokens as whole lines of the convolution axis (all time steps of a frequency row for a (1, k)
kernel, all frequency bins of a time step for a (k, 1) kernel), so that neighbours are neighbours in the tile and
nothing outside it is needed. Lines longer than the tile are cut into segments with a halo on both sides. Prefix tokens
are lines of length one: the same code gives them the centre tap alone.

Names: `p_` pointer, `b_` block in registers, `o_` offset, `m_` mask; BT tokens, BK / BD channels, KC = taps * R packed
columns padded to KP, RP = R padded (a power of two each, as Triton wants).
"""

from dataclasses import dataclass

import triton
import triton.language as tl

CALL_ARGUMENTS = [
    "batch", "line_count", "line_length", "line_stride", "position_stride", "prefix", "tokens",
    "patch_tiles", "per_tile", "window", "halo", "segments", "chunk",
]  # fmt: skip
"""Arguments that differ from call to call: not specialised, so that one compiled kernel serves every batch and grid."""


@dataclass(frozen=True)
class Lines:
    """How the convolution axis lies in a sequence of tokens: `count` lines of `length` patches per clip."""

    count: int
    length: int
    line_stride: int
    position_stride: int
    prefix: int

    @classmethod
    def along(cls, kernel: tuple[int, int], freq_bins: int, time_steps: int, prefix: int, time_major: bool) -> "Lines":
        """Lines along time for a (1, k) kernel, along frequency for a (k, 1) kernel; any for (1, 1)."""
        freq_stride, time_stride = (1, freq_bins) if time_major else (time_steps, 1)
        if kernel[0] > 1:
            return cls(time_steps, freq_bins, time_stride, freq_stride, prefix)
        return cls(freq_bins, time_steps, freq_stride, time_stride, prefix)

    @property
    def tokens(self) -> int:
        return self.prefix + self.count * self.length


@dataclass(frozen=True)
class Tiling:
    """How lines are dealt to programs of `BT` tokens; the numbers are the kernels' arguments."""

    patch_tiles: int
    prefix_tiles: int
    per_tile: int  # lines in a tile
    window: int  # tokens of a line in a tile, halo included
    halo: int
    segments: int  # tiles that share a line

    @classmethod
    def of(cls, lines: Lines, batch: int, taps: int, block_tokens: int) -> "Tiling":
        prefix_tiles = triton.cdiv(batch * lines.prefix, block_tokens)
        if lines.length <= block_tokens:
            per_tile = block_tokens // lines.length
            return cls(triton.cdiv(batch * lines.count, per_tile), prefix_tiles, per_tile, lines.length, 0, 1)
        # The down- and the up-projection each look taps // 2 positions aside.
        halo = 2 * (taps // 2)
        segments = triton.cdiv(lines.length, block_tokens - 2 * halo)
        return cls(batch * lines.count * segments, prefix_tiles, 1, block_tokens, halo, segments)

    @property
    def tiles(self) -> int:
        return self.patch_tiles + self.prefix_tiles


@triton.jit
def locate(
    pid,
    batch,
    line_count,
    line_length,
    line_stride,
    position_stride,
    prefix,
    patch_tiles,
    per_tile,
    window,
    halo,
    segments,
    BT: tl.constexpr,
):
    """The tokens of program `pid`: clip and token number, place in the window, which exist, which are its own.

    Returns:
        (clip [BT] int64, token [BT], place [BT], window, m_exists [BT], m_owned [BT])
    """
    is_prefix = pid >= patch_tiles
    window = tl.where(is_prefix, 1, window)
    halo = tl.where(is_prefix, 0, halo)
    per_tile = tl.where(is_prefix, BT, per_tile)
    length = tl.where(is_prefix, 1, line_length)
    lines_per_clip = tl.where(is_prefix, prefix, line_count)
    first_line = tl.where(is_prefix, (pid - patch_tiles) * BT, pid // segments * per_tile)
    first_position = tl.where(is_prefix, 0, pid % segments * (window - 2 * halo) - halo)

    row = tl.arange(0, BT)
    place = row % window
    line = first_line + row // window
    position = first_position + place
    m_exists = (row // window < per_tile) & (line < batch * lines_per_clip) & (position >= 0) & (position < length)
    m_owned = m_exists & (place >= halo) & (place < window - halo)
    line_in_clip = line % lines_per_clip
    token = tl.where(is_prefix, line_in_clip, prefix + line_in_clip * line_stride + position * position_stride)
    return (line // lines_per_clip).to(tl.int64), token, place, window, m_exists, m_owned


@triton.jit
def project_rows(
    p_in, o_rows, m_rows, stride_channel, p_weight, o_columns, m_columns, stride_weight,
    D: tl.constexpr, BT: tl.constexpr, BK: tl.constexpr, KP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One GEMM over all channels, each row of the input read once: [BT, D] x [D, KP] -> [BT, KP] float32."""
    b_sum = tl.zeros((BT, KP), tl.float32)
    for k in range(0, D, BK):
        channel = k + tl.arange(0, BK)
        b_in = tl.load(p_in + o_rows[:, None] + channel[None, :] * stride_channel, mask=m_rows[:, None], other=0.0)
        b_weight = tl.load(
            p_weight + channel[:, None] * stride_weight + o_columns[None, :], mask=m_columns[None, :], other=0.0
        )
        b_sum = tl.dot(b_in.to(b_weight.dtype), b_weight, b_sum, input_precision=PRECISION)
    return b_sum


@triton.jit
def shift_rows(b_rows, place, window, step, BT: tl.constexpr):
    """Each column takes its rows from `step` positions further along the line, zero from beyond the window.

    b_rows [BT, KP], step [KP] -> [BT, KP].
    """
    source = place[:, None] + step[None, :]
    row = tl.arange(0, BT)[:, None] + step[None, :]
    # The rows after the last whole window belong to no line; theirs may point beyond the tile.
    inside = (source >= 0) & (source < window) & (row < BT)
    return tl.where(inside, tl.gather(b_rows, tl.where(inside, row, 0), 0), 0.0).to(b_rows.dtype)


@triton.jit
def pick(b_rows, b_matrix, PRECISION: tl.constexpr):
    """Product with a 0/1 matrix, float32. "tf32x3" takes float32 rows in two parts of 11 bits; TF32 takes the first."""
    if PRECISION == "tf32x3":
        b_high = (b_rows.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
        b_picked = tl.dot(b_high, b_matrix, input_precision="tf32")
        return tl.dot(b_rows - b_high, b_matrix, b_picked, input_precision="tf32")
    return tl.dot(b_rows, b_matrix, input_precision=PRECISION)


@triton.jit
def fold(b_taps, place, window, step, BT: tl.constexpr, R: tl.constexpr, RP: tl.constexpr, KC: tl.constexpr,
         KP: tl.constexpr, PRECISION: tl.constexpr, dtype: tl.constexpr):  # fmt: skip
    """Shifted sum over taps, [BT, KP] -> [BT, RP] float32: gather rows, then one product with a 0/1 matrix.

    With weights of 16 bits the taps are rounded to their dtype before they are added, as a GEMM's results would be.
    """
    if KC == R:
        return b_taps  # one tap: nothing to shift or sum, KP == RP
    column = tl.arange(0, KP)[:, None]
    b_matrix = ((column % R == tl.arange(0, RP)[None, :]) & (column < KC)).to(dtype)
    return pick(shift_rows(b_taps.to(dtype), place, window, step, BT), b_matrix, PRECISION)


@triton.jit
def unfold(b_hidden, place, window, step, BT: tl.constexpr, R: tl.constexpr, RP: tl.constexpr, KC: tl.constexpr,
           KP: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Shifted copies for each tap, [BT, RP] -> [BT, KP]; the transpose of `fold` when the steps are negated."""
    if KC == R:
        return b_hidden
    column = tl.arange(0, KP)[None, :]
    b_matrix = ((column % R == tl.arange(0, RP)[:, None]) & (column < KC)).to(b_hidden.dtype)
    return shift_rows(pick(b_hidden, b_matrix, PRECISION).to(b_hidden.dtype), place, window, step, BT)
