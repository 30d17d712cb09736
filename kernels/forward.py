"""LoAA forward in one launch: x, the summands and the result pass through memory once."""

import triton
import triton.language as tl

from fastloaa.kernels.elementwise import activate
from fastloaa.kernels.tile import CALL_ARGUMENTS, fold, locate, place_rows, project_rows, send_hidden, send_taps, unfold


@triton.jit(do_not_specialize=CALL_ARGUMENTS)
def loaa_forward_kernel(
    p_x, p_down, p_up, p_down_bias, p_up_bias, p_mask, p_block, p_skip, p_out, p_pre, p_rows,
    stride_x_clip, stride_x_token, stride_x_channel,
    stride_down_row: tl.constexpr, stride_down_channel: tl.constexpr, stride_down_tap: tl.constexpr,
    stride_up_channel: tl.constexpr, stride_up_row: tl.constexpr, stride_up_tap: tl.constexpr,
    stride_block_clip, stride_block_token, stride_block_channel,
    stride_skip_clip, stride_skip_token, stride_skip_channel,
    scale,
    batch, line_count, line_length, line_stride, position_stride, prefix, tokens,
    patch_tiles, per_tile, window, halo, segments, whole,
    D: tl.constexpr, R: tl.constexpr, TAPS: tl.constexpr, HIDDEN: tl.constexpr, RP: tl.constexpr, KP: tl.constexpr,
    PIECES: tl.constexpr, PIECE: tl.constexpr, LAST: tl.constexpr, VECTOR: tl.constexpr, WIDTH: tl.constexpr,
    BT: tl.constexpr, BK: tl.constexpr, BD: tl.constexpr, STAGES: tl.constexpr, LONG: tl.constexpr,
    ACT: tl.constexpr, DOWN_BIAS: tl.constexpr, UP_BIAS: tl.constexpr, MASK: tl.constexpr, BLOCK: tl.constexpr,
    SKIP: tl.constexpr, KEEP_PRE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program: BT tokens, all channels.

    Weights are [R, D, taps] and [D, R, taps] by strides, x and the summands [batch, tokens, D] by strides; out is
    dense, pre and mask are [batch, tokens, HIDDEN] of which this launch has R columns. The weights' strides are
    constants so that the compiler sees what is contiguous in packed columns.
    """
    first_clip, clip, token, place, begin, end, m_exists, m_owned = locate(
        tl.program_id(0), batch, line_count, line_length, line_stride, position_stride, prefix,
        patch_tiles, per_tile, window, halo, segments, BT, LONG,
    )  # fmt: skip
    column = tl.arange(0, KP)  # packed: tap * R + hidden row
    m_column = column < TAPS * R
    tap, hidden_row = column // R, column % R

    # Down: x is read here and nowhere else.
    o_x = clip * stride_x_clip + token * stride_x_token  # [BT]
    o_down = hidden_row * stride_down_row + tap * stride_down_tap  # [KP]
    b_taps = project_rows(
        p_x + first_clip * stride_x_clip, o_x, m_exists, stride_x_channel,
        p_down, o_down, m_column, stride_down_channel, D, BT, BK, KP, STAGES, PRECISION,
    )  # fmt: skip
    first, number = first_clip * tokens, clip * tokens + token  # of the tokens of all clips
    if MASK:
        p_mask += first * HIDDEN
    if KEEP_PRE:
        p_pre += first * HIDDEN
    if TAPS == 1:
        b_unfolded = activate_rows(
            b_taps, p_down_bias, p_mask, p_pre, number, m_exists, m_owned, scale,
            0, RP, R, HIDDEN, ACT, DOWN_BIAS, MASK, KEEP_PRE,
        ).to(p_up.dtype.element_ty)  # fmt: skip
    else:
        p_rows, o_rows, stride_place = place_rows(
            p_rows, first_clip, clip, token, tokens, position_stride, whole, D, WIDTH, BT
        )
        send_taps(b_taps, p_rows, o_rows, m_exists, KP)
        for piece in tl.static_range(PIECES):
            b_pre = fold(
                p_rows, o_rows, stride_place, place, begin, end, m_exists, 1,
                piece * PIECE, LAST if piece == PIECES - 1 else PIECE, TAPS, R, VECTOR,
            )  # fmt: skip
            b_hidden = activate_rows(
                b_pre, p_down_bias, p_mask, p_pre, number, m_exists, m_owned, scale,
                piece * PIECE, LAST if piece == PIECES - 1 else PIECE, R, HIDDEN, ACT, DOWN_BIAS, MASK, KEEP_PRE,
            )  # fmt: skip
            send_hidden(
                b_hidden, p_rows, o_rows, m_exists,
                piece * PIECE, LAST if piece == PIECES - 1 else PIECE, R, KP, VECTOR,
            )  # fmt: skip
        b_unfolded = unfold(
            p_rows, o_rows, stride_place, place, begin, end, m_exists, 1, TAPS, R, KP, p_up.dtype.element_ty
        )  # [BT, KP]

    # Up, and the sum: the summands are read and the result is written here and nowhere else.
    o_up = hidden_row * stride_up_row + tap * stride_up_tap  # [KP]
    p_out, o_out = p_out + first * D, number * D
    if BLOCK:
        p_block += first_clip * stride_block_clip
        o_block = clip * stride_block_clip + token * stride_block_token
    if SKIP:
        p_skip += first_clip * stride_skip_clip
        o_skip = clip * stride_skip_clip + token * stride_skip_token
    for start in tl.range(0, D, BD, num_stages=STAGES):
        channel = start + tl.arange(0, BD)
        b_weight = tl.load(
            p_up + o_up[:, None] + channel[None, :] * stride_up_channel, mask=m_column[:, None], other=0.0
        )
        b_out = tl.dot(b_unfolded, b_weight, input_precision=PRECISION)  # [BT, BD]
        if UP_BIAS:
            b_out += scale * tl.load(p_up_bias + channel).to(tl.float32)[None, :]
        if BLOCK:
            p_tile = p_block + (o_block[:, None] + channel[None, :] * stride_block_channel)
            b_out += tl.load(p_tile, mask=m_owned[:, None], other=0.0).to(tl.float32)
        if SKIP:
            p_tile = p_skip + (o_skip[:, None] + channel[None, :] * stride_skip_channel)
            b_out += tl.load(p_tile, mask=m_owned[:, None], other=0.0).to(tl.float32)
        tl.store(p_out + (o_out[:, None] + channel[None, :]), b_out, mask=m_owned[:, None])


@triton.jit
def activate_rows(
    b_pre, p_down_bias, p_mask, p_pre, number, m_exists, m_owned, scale,
    FIRST: tl.constexpr, COUNT: tl.constexpr, R: tl.constexpr, HIDDEN: tl.constexpr,
    ACT: tl.constexpr, DOWN_BIAS: tl.constexpr, MASK: tl.constexpr, KEEP_PRE: tl.constexpr,
):  # fmt: skip
    """Hidden rows FIRST to FIRST + COUNT of tokens `number` [BT], from what the projection gave."""
    row = FIRST + tl.arange(0, COUNT)
    m_row = row < R
    if DOWN_BIAS:
        b_pre += tl.load(p_down_bias + row, mask=m_row, other=0.0).to(tl.float32)[None, :]
    o_hidden = number[:, None] * HIDDEN + row[None, :]  # into pre and mask
    if KEEP_PRE:
        tl.store(p_pre + o_hidden, b_pre, mask=m_owned[:, None] & m_row[None, :])
    b_hidden = activate(b_pre, ACT) * scale
    if MASK:
        b_mask = tl.load(p_mask + o_hidden, mask=m_exists[:, None] & m_row[None, :], other=0.0)
        b_hidden *= b_mask.to(tl.float32)
    return b_hidden  # where no token is, activation(bias): nothing reads it
