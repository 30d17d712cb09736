"""What a merged model does between its two widened GEMMs, in one launch and in place.

A merged block's Linear gives [wide columns | taps * R adapter columns | padding]. The wide columns get the block's own
activation; the adapter columns, tap-major products x U_down, become the shifted copies that the next Linear's U_up
columns multiply. No column is copied elsewhere.
"""

import triton
import triton.language as tl

from fastloaa.kernels.elementwise import activate
from fastloaa.kernels.tile import CALL_ARGUMENTS, locate


@triton.jit(do_not_specialize=[*CALL_ARGUMENTS, "stride_clip", "stride_token", "shift_programs"])
def widened_activation_kernel(
    p_buffer, stride_clip, stride_token,
    batch, line_count, line_length, line_stride, position_stride, prefix, tokens,
    patch_tiles, per_tile, shift_programs,
    START: tl.constexpr, R: tl.constexpr, TAPS: tl.constexpr,
    BT: tl.constexpr, BR: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr, ALIGN: tl.constexpr,
    LONG: tl.constexpr, ACT: tl.constexpr, WIDE_ACT: tl.constexpr,
):  # fmt: skip
    """Programs below `shift_programs`: whole lines of BT tokens, BR hidden rows. The others: BM tokens, BD columns.

    The buffer is [batch, tokens, START + TAPS * R or more] with both strides multiples of ALIGN. A program reads and
    writes all taps of its tokens and hidden rows, so none reads what another writes.
    """
    pid = tl.program_id(0)
    if WIDE_ACT == "" or pid < shift_programs:
        first_clip, clip, token, place, _, end, m_exists, _ = locate(
            pid // tl.cdiv(R, BR), batch, line_count, line_length, line_stride, position_stride, prefix,
            patch_tiles, per_tile, line_length, 0, 1, BT, LONG,
        )  # fmt: skip
        row = pid % tl.cdiv(R, BR) * BR + tl.arange(0, BR)
        p_first = p_buffer + tl.multiple_of(first_clip * stride_clip, [ALIGN])
        o_rows = tl.multiple_of(clip * stride_clip + token * stride_token, [ALIGN])
        p_rows = p_first + (o_rows[:, None] + (START + row)[None, :])
        stride_place = tl.multiple_of(position_stride * stride_token, [ALIGN])
        shift_activate_(p_rows, stride_place, m_exists[:, None] & (row < R)[None, :], place, end, R, TAPS, BT, BR, ACT)
    else:
        activate_(
            p_buffer, pid - shift_programs, stride_clip, stride_token, batch, tokens, START, BM, BD, ALIGN, WIDE_ACT
        )


@triton.jit
def activate_(
    p_buffer, tile, stride_clip, stride_token, batch, tokens,
    D: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr, ALIGN: tl.constexpr, ACT: tl.constexpr,
):  # fmt: skip
    """One tile of BM tokens and BD of the first D columns."""
    flat = tile // tl.cdiv(D, BD) * BM + tl.arange(0, BM)
    column = tile % tl.cdiv(D, BD) * BD + tl.arange(0, BD)
    clip, token = (flat // tokens).to(tl.int64), (flat % tokens).to(tl.int64)
    o_rows = tl.multiple_of(clip * stride_clip + token * stride_token, [ALIGN])
    p_tile = p_buffer + o_rows[:, None] + column[None, :]
    m_tile = (flat < batch * tokens)[:, None] & (column < D)[None, :]
    tl.store(p_tile, activate(tl.load(p_tile, mask=m_tile, other=0.0).to(tl.float32), ACT), mask=m_tile)


@triton.jit
def shift_activate_(
    p_rows, stride_place, m_rows, place, window,
    R: tl.constexpr, TAPS: tl.constexpr, BT: tl.constexpr, BR: tl.constexpr, ACT: tl.constexpr,
):  # fmt: skip
    """Sum over taps of what lies `step` places further, activate, and write it back `step` places before.

    p_rows [BT, BR] points at the first tap of hidden rows; places lie `stride_place` elements apart.
    """
    b_pre = tl.zeros((BT, BR), tl.float32)
    for tap in tl.static_range(TAPS):
        source = place + (tap - TAPS // 2)
        m_inside = (source >= 0) & (source < window)
        p_source = p_rows + ((tap - TAPS // 2) * stride_place + tap * R)
        b_pre += tl.load(p_source, mask=m_rows & m_inside[:, None], other=0.0).to(tl.float32)
    b_hidden = activate(b_pre, ACT)

    tl.debug_barrier()  # a warp's copies land where the others read
    for tap in tl.static_range(TAPS):
        # Places go round their line, so that each is written once: those that wrapped look beyond its end.
        unwrapped = place - (tap - TAPS // 2)
        target = (unwrapped + TAPS * window) % window
        p_target = p_rows + (((target - place) * stride_place)[:, None] + tap * R)
        tl.store(p_target, tl.where((target == unwrapped)[:, None], b_hidden, 0.0), mask=m_rows)
