"""LoAA backward, first half: the gradient of x in one launch of the forward's shape.

With z the packed taps of the forward, the transposes read: d_hidden[p] = sum over taps of (dy U_up^T)[p - step, tap],
d_pre = d_hidden * activation'(pre), dx[p] = sum over taps of d_pre[p - step] U_down[tap]: the forward with the two
weights exchanged and the steps negated. Of the forward only the R-wide pre-activation is kept.
"""

import triton
import triton.language as tl

from fastloaa.kernels.elementwise import activate_with_grad
from fastloaa.kernels.tile import CALL_ARGUMENTS, fold, locate, place_rows, project_rows, send_hidden, send_taps, unfold


@triton.jit(do_not_specialize=CALL_ARGUMENTS)
def loaa_input_grad_kernel(
    p_dy, p_down, p_up, p_mask, p_pre, p_dpre, p_hidden, p_partial, p_dx, p_rows,
    stride_dy_clip, stride_dy_token, stride_dy_channel,
    stride_down_row: tl.constexpr, stride_down_channel: tl.constexpr, stride_down_tap: tl.constexpr,
    stride_up_channel: tl.constexpr, stride_up_row: tl.constexpr, stride_up_tap: tl.constexpr,
    scale,
    batch, line_count, line_length, line_stride, position_stride, prefix, tokens,
    patch_tiles, per_tile, window, halo, segments, whole,
    D: tl.constexpr, R: tl.constexpr, TAPS: tl.constexpr, HIDDEN: tl.constexpr, RP: tl.constexpr, KP: tl.constexpr,
    PIECES: tl.constexpr, PIECE: tl.constexpr, LAST: tl.constexpr, VECTOR: tl.constexpr, WIDTH: tl.constexpr,
    BT: tl.constexpr, BK: tl.constexpr, BD: tl.constexpr, STAGES: tl.constexpr, LONG: tl.constexpr,
    ACT: tl.constexpr, MASK: tl.constexpr, PARTIAL: tl.constexpr, INPUT_GRAD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program: BT tokens, all channels. Writes d_pre, the hidden rows that the up-projection multiplied, and dx.

    pre, d_pre, hidden and mask are [batch, tokens, HIDDEN] of which this launch has R columns; dx [batch, tokens, D]
    starts from `partial`, the sum of the launches for other columns.
    """
    first_clip, clip, token, place, begin, end, m_exists, m_owned = locate(
        tl.program_id(0), batch, line_count, line_length, line_stride, position_stride, prefix,
        patch_tiles, per_tile, window, halo, segments, BT, LONG,
    )  # fmt: skip
    column = tl.arange(0, KP)
    m_column = column < TAPS * R
    tap, hidden_row = column // R, column % R

    o_dy = clip * stride_dy_clip + token * stride_dy_token
    o_up = hidden_row * stride_up_row + tap * stride_up_tap
    b_taps = project_rows(
        p_dy + first_clip * stride_dy_clip, o_dy, m_exists, stride_dy_channel, p_up, o_up, m_column, stride_up_channel,
        D, BT, BK, KP, STAGES, PRECISION,
    )  # fmt: skip
    dtype: tl.constexpr = p_dpre.dtype.element_ty
    first, number = first_clip * tokens, clip * tokens + token  # of the tokens of all clips
    p_pre, p_dpre, p_hidden = p_pre + first * HIDDEN, p_dpre + first * HIDDEN, p_hidden + first * HIDDEN
    if MASK:
        p_mask += first * HIDDEN
    if TAPS == 1:
        b_unfolded = hidden_gradient(
            b_taps, p_mask, p_pre, p_dpre, p_hidden, number, m_exists, m_owned, scale,
            0, RP, R, HIDDEN, ACT, MASK,
        ).to(dtype)  # fmt: skip
    else:
        p_rows, o_rows, stride_place = place_rows(
            p_rows, first_clip, clip, token, tokens, position_stride, whole, D, WIDTH, BT
        )
        send_taps(b_taps, p_rows, o_rows, m_exists, KP)
        for piece in tl.static_range(PIECES):
            b_grad = fold(
                p_rows, o_rows, stride_place, place, begin, end, m_exists, -1,
                piece * PIECE, LAST if piece == PIECES - 1 else PIECE, TAPS, R, VECTOR,
            )  # fmt: skip
            b_grad = hidden_gradient(
                b_grad, p_mask, p_pre, p_dpre, p_hidden, number, m_exists, m_owned, scale,
                piece * PIECE, LAST if piece == PIECES - 1 else PIECE, R, HIDDEN, ACT, MASK,
            )  # fmt: skip
            if INPUT_GRAD:
                send_hidden(
                    b_grad, p_rows, o_rows, m_exists,
                    piece * PIECE, LAST if piece == PIECES - 1 else PIECE, R, KP, VECTOR,
                )  # fmt: skip
        if INPUT_GRAD:
            b_unfolded = unfold(p_rows, o_rows, stride_place, place, begin, end, m_exists, -1, TAPS, R, KP, dtype)

    if INPUT_GRAD:
        o_down = hidden_row * stride_down_row + tap * stride_down_tap
        p_dx, o_dx = p_dx + first * D, number * D
        if PARTIAL:
            p_partial += first * D
        for start in tl.range(0, D, BD, num_stages=STAGES):
            channel = start + tl.arange(0, BD)
            b_weight = tl.load(
                p_down + o_down[:, None] + channel[None, :] * stride_down_channel, mask=m_column[:, None], other=0.0
            )
            b_dx = tl.dot(b_unfolded, b_weight, input_precision=PRECISION)
            if PARTIAL:
                b_dx += tl.load(p_partial + (o_dx[:, None] + channel[None, :]), mask=m_owned[:, None], other=0.0)
            tl.store(p_dx + (o_dx[:, None] + channel[None, :]), b_dx, mask=m_owned[:, None])


@triton.jit
def hidden_gradient(
    b_grad, p_mask, p_pre, p_dpre, p_hidden, number, m_exists, m_owned, scale,
    FIRST: tl.constexpr, COUNT: tl.constexpr, R: tl.constexpr, HIDDEN: tl.constexpr,
    ACT: tl.constexpr, MASK: tl.constexpr,
):  # fmt: skip
    """d_pre of hidden rows FIRST to FIRST + COUNT, stored together with the hidden rows."""
    row = FIRST + tl.arange(0, COUNT)
    o_hidden = number[:, None] * HIDDEN + row[None, :]  # [BT, COUNT]
    m_hidden = m_exists[:, None] & (row < R)[None, :]
    b_pre = tl.load(p_pre + o_hidden, mask=m_hidden, other=0.0).to(tl.float32)
    b_hidden, b_slope = activate_with_grad(b_pre, ACT)
    b_hidden *= scale
    b_grad *= b_slope * scale
    if MASK:
        b_mask = tl.load(p_mask + o_hidden, mask=m_hidden, other=0.0).to(tl.float32)
        b_hidden *= b_mask
        b_grad *= b_mask
    m_hidden = m_owned[:, None] & (row < R)[None, :]
    tl.store(p_hidden + o_hidden, b_hidden, mask=m_hidden)
    tl.store(p_dpre + o_hidden, b_grad, mask=m_hidden)
    return b_grad
