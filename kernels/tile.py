"""What the one-launch kernels share: which tokens a program holds, and how rows move along the convolution axis.

A program holds `BT` tokens as whole lines of the convolution axis (all time steps of a frequency row for a (1, k)
kernel, all frequency bins of a time step for a (k, 1) kernel), so that neighbours are neighbours in the tile and
nothing outside it is needed. Lines longer than the tile are cut into segments with a halo on both sides. Prefix tokens
are lines of length one: the same code gives them the centre tap alone.

Names: `p_` pointer, `b_` block in registers, `o_` offset, `m_` mask; BT tokens, BK / BD channels, KC = taps * R packed
columns padded to KP, RP = R padded (a power of two each, as Triton wants).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

CALL_ARGUMENTS = [
    "batch", "rows", "line_count", "line_length", "line_stride", "position_stride", "prefix", "tokens",
    "patch_tiles", "per_tile", "window", "halo", "segments", "whole", "chunk",
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
class Geometry:
    """The grid as the kernels need it, integers only."""

    freq_bins: int
    prefix_tokens: int
    time_major: bool

    def lines(self, tokens: int, kernel: tuple[int, int]) -> Lines:
        time_steps = (tokens - self.prefix_tokens) // self.freq_bins
        return Lines.along(kernel, self.freq_bins, time_steps, self.prefix_tokens, self.time_major)


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


def is_long(block_tokens: int, read: Sequence[Tensor], dense: int) -> bool:
    """May two elements that a program addresses lie 2 ** 31 apart, in tensors [batch, tokens, channels]?

    Args:
        read: tensors by strides.
        dense: elements of a clip in the largest of the others.
    """
    clips = block_tokens  # at most, where each has a single line: a prefix token
    spans = (sum((n - 1) * abs(stride) for n, stride in zip(t.shape[1:], t.stride()[1:], strict=True)) for t in read)
    first = (clips * abs(t.stride(0)) for t in read)
    return max(clips * dense, *map(sum, zip(spans, first, strict=True))) >= 2**31


def rows_width(rank: int, columns: int) -> int:
    """Elements of a row that are sent through memory: the packed columns and the hidden rows beside them, aligned."""
    return triton.cdiv(columns + rank, 16) * 16


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
    LONG: tl.constexpr,
):
    """The tokens of program `pid`: clip and token number, place in the window, which exist, which are its own.

    Clips are counted from the program's first, so that offsets within a program are 32-bit numbers, whose products take
    one instruction and not three; where its clips may lie 2 ** 31 elements apart, LONG makes them 64-bit ones.

    Returns:
        (first_clip int64, clip [BT], token [BT], place [BT], begin, end of the places that exist, m_exists [BT],
        m_owned [BT])
    """
    is_prefix = pid >= patch_tiles
    window = tl.where(is_prefix, 1, window)
    halo = tl.where(is_prefix, 0, halo)
    per_tile = tl.where(is_prefix, BT, per_tile)
    length = tl.where(is_prefix, 1, line_length)
    lines_per_clip = tl.where(is_prefix, prefix, line_count)
    first_line = tl.where(is_prefix, (pid - patch_tiles) * BT, pid // segments * per_tile)
    first_position = tl.where(is_prefix, 0, pid % segments * (window - 2 * halo) - halo)
    first_clip, first_of_clip = first_line // lines_per_clip, first_line % lines_per_clip

    row = tl.arange(0, BT)
    number, place = divide(row, window)
    clips, line = divide(first_of_clip + number, lines_per_clip)
    position = first_position + place
    begin, end = tl.maximum(-first_position, 0), tl.minimum(length - first_position, window)
    m_exists = (number < per_tile) & (first_line + number < batch * lines_per_clip)
    m_exists = m_exists & (place >= begin) & (place < end)
    m_owned = m_exists & (place >= halo) & (place < window - halo)
    token = tl.where(is_prefix, line, prefix + line * line_stride + position * position_stride)
    if LONG:
        clips, token = clips.to(tl.int64), token.to(tl.int64)
    return first_clip.to(tl.int64), clips, token, place, begin, end, m_exists, m_owned


@triton.jit
def divide(n, d):
    """(n // d, n % d) for numbers from 0 to 2 ** 20 and one d: a product with 1 / d, an integer division being long.

    (n + 0.5) / d is at least 0.5 / d from the next integer, and float32 is exact to 2 ** -22 of it.
    """
    quotient = ((n.to(tl.float32) + 0.5) * (1.0 / d)).to(tl.int32)
    return quotient, n - quotient * d


@triton.jit
def project_rows(
    p_in, o_rows, m_rows, stride_channel, p_weight, o_columns, m_columns, stride_weight,
    D: tl.constexpr, BT: tl.constexpr, BK: tl.constexpr, KP: tl.constexpr, STAGES: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """One GEMM over all channels, each row of the input read once: [BT, D] x [D, KP] -> [BT, KP] float32."""
    b_sum = tl.zeros((BT, KP), tl.float32)
    for k in tl.range(0, D, BK, num_stages=STAGES):
        channel = k + tl.arange(0, BK)
        b_in = tl.load(p_in + o_rows[:, None] + channel[None, :] * stride_channel, mask=m_rows[:, None], other=0.0)
        b_weight = tl.load(
            p_weight + channel[:, None] * stride_weight + o_columns[None, :], mask=m_columns[None, :], other=0.0
        )
        b_sum = tl.dot(b_in.to(b_weight.dtype), b_weight, b_sum, input_precision=PRECISION)
    return b_sum


@triton.jit
def place_rows(p_rows, first_clip, clip, token, tokens, position_stride, whole, D: tl.constexpr, WIDTH: tl.constexpr,
               BT: tl.constexpr):  # fmt: skip
    """Where the rows of this program meet: (pointer, offsets [BT], elements from one place of a line to the next).

    `whole`: in the program's own rows of the result, [batch, tokens, D], which nobody reads before they are written at
    last. Otherwise, where a halo puts rows into two programs, in a scratch [programs * BT, WIDTH].
    """
    first = tl.where(whole != 0, first_clip * tokens * D, tl.program_id(0).to(tl.int64) * (BT * WIDTH))
    o_rows = tl.where(whole != 0, (clip * tokens + token) * D, tl.arange(0, BT) * WIDTH)
    return p_rows + first, o_rows, tl.where(whole != 0, position_stride * D, WIDTH)


@triton.jit
def send_taps(b_taps, p_rows, o_rows, m_exists, KP: tl.constexpr):
    """Store the packed columns [BT, KP] at the beginning of the rows, rounded to their dtype, for `fold` to read."""
    p_tile = p_rows + (o_rows[:, None] + tl.arange(0, KP)[None, :])
    tl.store(p_tile, b_taps, mask=m_exists[:, None])
    tl.debug_barrier()  # a warp's rows land where the others read


@triton.jit
def fold(p_rows, o_rows, stride_place, place, begin, end, m_exists, SIGN: tl.constexpr, FIRST: tl.constexpr,
         COUNT: tl.constexpr, TAPS: tl.constexpr, R: tl.constexpr, VECTOR: tl.constexpr):  # fmt: skip
    """Sum over taps of the rows SIGN * (tap - TAPS // 2) places further, zero from places that do not exist.

    Hidden rows FIRST to FIRST + COUNT, [BT, COUNT] float32.
    """
    centre: tl.constexpr = TAPS // 2
    row = FIRST + tl.arange(0, COUNT)
    o_centre = tl.multiple_of(o_rows[:, None] + (centre * R + row)[None, :], [1, VECTOR])
    b_sum = tl.load(p_rows + o_centre, mask=m_exists[:, None] & (row < R)[None, :], other=0.0).to(tl.float32)
    for tap in tl.static_range(TAPS):
        if tap != centre:
            source = place + SIGN * (tap - centre)
            m_tap = (m_exists & (source >= begin) & (source < end))[:, None] & (row < R)[None, :]
            o_tap = (o_rows + SIGN * (tap - centre) * stride_place)[:, None] + (tap * R + row)[None, :]
            b_tap = tl.load(p_rows + tl.multiple_of(o_tap, [1, VECTOR]), mask=m_tap, other=0.0)
            b_sum += b_tap.to(tl.float32)
    return b_sum


@triton.jit
def send_hidden(b_hidden, p_rows, o_rows, m_exists, FIRST: tl.constexpr, COUNT: tl.constexpr, R: tl.constexpr,
                KP: tl.constexpr, VECTOR: tl.constexpr):  # fmt: skip
    """Store hidden rows FIRST to FIRST + COUNT beside the packed columns, for `unfold` to read."""
    row = FIRST + tl.arange(0, COUNT)
    o_tile = tl.multiple_of(o_rows[:, None] + (KP + row)[None, :], [1, VECTOR])
    tl.store(p_rows + o_tile, b_hidden, mask=m_exists[:, None] & (row < R)[None, :])


@triton.jit
def unfold(p_rows, o_rows, stride_place, place, begin, end, m_exists, SIGN: tl.constexpr, TAPS: tl.constexpr,
           R: tl.constexpr, KP: tl.constexpr, dtype: tl.constexpr):  # fmt: skip
    """Copies for each tap, [BT, KP], of the hidden rows SIGN * (tap - TAPS // 2) places further.

    The transpose of `fold` when SIGN is negated.
    """
    tl.debug_barrier()  # a warp's rows land where the others read
    column = tl.arange(0, KP)
    step = SIGN * (column // R - TAPS // 2)
    source = place[:, None] + step[None, :]
    m_there = m_exists[:, None] & (source >= begin) & (source < end) & (column < TAPS * R)[None, :]
    o_there = o_rows[:, None] + (step * stride_place + KP + column % R)[None, :]
    b_copies = tl.load(p_rows + o_there, mask=m_there, other=0.0).to(dtype)
    tl.debug_barrier()  # all is read before the rows are written over
    return b_copies
