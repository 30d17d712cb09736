"""LoAA forward in one launch: x, the summands and the result pass through memory once."""

import triton
import triton.language as tl

from fastloaa.kernels.elementwise import activate
from fastloaa.kernels.tile import CALL_ARGUMENTS, fold, locate, project_rows, unfold


@triton.jit(do_not_specialize=CALL_ARGUMENTS)
def loaa_forward_kernel(
    p_x, p_down, p_up, p_down_bias, p_up_bias, p_mask, p_block, p_skip, p_out, p_pre,
    stride_x_clip, stride_x_token, stride_x_channel,
    stride_down_row: tl.constexpr, stride_down_channel: tl.constexpr, stride_down_tap: tl.constexpr,
    stride_up_channel: tl.constexpr, stride_up_row: tl.constexpr, stride_up_tap: tl.constexpr,
    stride_block_clip, stride_block_token, stride_block_channel,
    stride_skip_clip, stride_skip_token, stride_skip_channel,
    scale,
    batch, line_count, line_length, line_stride, position_stride, prefix, tokens,
    patch_tiles, per_tile, window, halo, segments,
    D: tl.constexpr, R: tl.constexpr, TAPS: tl.constexpr, HIDDEN: tl.constexpr, RP: tl.constexpr, KP: tl.constexpr,
    BT: tl.constexpr, BK: tl.constexpr, BD: tl.constexpr, ACT: tl.constexpr,
    DOWN_BIAS: tl.constexpr, UP_BIAS: tl.constexpr, MASK: tl.constexpr, BLOCK: tl.constexpr, SKIP: tl.constexpr,
    KEEP_PRE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program: BT tokens, all channels.

    Weights are [R, D, taps] and [D, R, taps] by strides, x and the summands [batch, tokens, D] by strides; out is
    dense, pre and mask are [batch, tokens, HIDDEN] of which this launch has R columns. The weights' strides are
    constants so that the compiler sees what is contiguous in packed columns.
    """
    clip, token, place, window, m_exists, m_owned = locate(
        tl.program_id(0), batch, line_count, line_length, line_stride, position_stride, prefix,
        patch_tiles, per_tile, window, halo, segments, BT,
    )  # fmt: skip
    KC: tl.constexpr = TAPS * R
    column = tl.arange(0, KP)  # packed: tap * R + hidden row
    m_column = column < KC
    tap, hidden_row = column // R, column % R
    step = tap - TAPS // 2

    # Down: x is read here and nowhere else.
    o_x = clip * stride_x_clip + token.to(tl.int64) * stride_x_token  # [BT]
    o_down = hidden_row * stride_down_row + tap * stride_down_tap  # [KP]
    b_taps = project_rows(
        p_x, o_x, m_exists, stride_x_channel, p_down, o_down, m_column, stride_down_channel, D, BT, BK, KP, PRECISION
    )
    b_pre = fold(b_taps, place, window, step, BT, R, RP, KC, KP, PRECISION, p_up.dtype.element_ty)  # [BT, RP]

    row = tl.arange(0, RP)
    m_row = row < R
    if DOWN_BIAS:
        b_pre += tl.load(p_down_bias + row, mask=m_row, other=0.0).to(tl.float32)[None, :]
    o_hidden = (clip * tokens + token) * HIDDEN  # [BT] into pre and mask
    if KEEP_PRE:
        tl.store(p_pre + o_hidden[:, None] + row[None, :], b_pre, mask=m_owned[:, None] & m_row[None, :])

    b_hidden = activate(b_pre, ACT) * scale
    if MASK:
        m_hidden = m_exists[:, None] & m_row[None, :]
        b_hidden *= tl.load(p_mask + o_hidden[:, None] + row[None, :], mask=m_hidden, other=0.0)
    # Outside the grid hidden rows are zero, not activation(bias).
    b_hidden = tl.where(m_exists[:, None], b_hidden, 0.0).to(p_up.dtype.element_ty)

    # Up, and the sum: the summands are read and the result is written here and nowhere else.
    b_unfolded = unfold(b_hidden, place, window, step, BT, R, RP, KC, KP, PRECISION)  # [BT, KP]
    o_up = hidden_row * stride_up_row + tap * stride_up_tap  # [KP]
    o_out = (clip * tokens + token) * D
    for start in range(0, D, BD):
        channel = start + tl.arange(0, BD)
        b_weight = tl.load(
            p_up + o_up[:, None] + channel[None, :] * stride_up_channel, mask=m_column[:, None], other=0.0
        )
        b_out = tl.dot(b_unfolded, b_weight, input_precision=PRECISION)  # [BT, BD]
        if UP_BIAS:
            b_out += scale * tl.load(p_up_bias + channel).to(tl.float32)[None, :]
        if BLOCK:
            o_block = clip * stride_block_clip + token.to(tl.int64) * stride_block_token
            p_tile = p_block + o_block[:, None] + channel[None, :] * stride_block_channel
            b_out += tl.load(p_tile, mask=m_owned[:, None], other=0.0).to(tl.float32)
        if SKIP:
            o_skip = clip * stride_skip_clip + token.to(tl.int64) * stride_skip_token
            p_tile = p_skip + o_skip[:, None] + channel[None, :] * stride_skip_channel
            b_out += tl.load(p_tile, mask=m_owned[:, None], other=0.0).to(tl.float32)
        tl.store(p_out + o_out[:, None] + channel[None, :], b_out, mask=m_owned[:, None])
