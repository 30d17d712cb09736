"""LoAA backward: the gradient of x in one launch of the forward's shape, and both weight gradients in one more.

With z the packed taps of the forward, the transposes read: d_hidden[p] = sum over taps of (dy U_up^T)[p - step, tap],
d_pre = d_hidden * activation'(pre), dx[p] = sum over taps of d_pre[p - step] U_down[tap]: the forward with the two
weights exchanged and the steps negated. Of the forward only the R-wide pre-activation is kept.
"""

import triton
import triton.language as tl

from fastloaa.kernels.elementwise import activate, activate_grad
from fastloaa.kernels.tile import CALL_ARGUMENTS, fold, locate, project_rows, unfold


@triton.jit(do_not_specialize=CALL_ARGUMENTS)
def loaa_input_grad_kernel(
    p_dy, p_down, p_up, p_mask, p_pre, p_dpre, p_partial, p_dx,
    stride_dy_clip, stride_dy_token, stride_dy_channel,
    stride_down_row: tl.constexpr, stride_down_channel: tl.constexpr, stride_down_tap: tl.constexpr,
    stride_up_channel: tl.constexpr, stride_up_row: tl.constexpr, stride_up_tap: tl.constexpr,
    scale,
    batch, line_count, line_length, line_stride, position_stride, prefix, tokens,
    patch_tiles, per_tile, window, halo, segments,
    D: tl.constexpr, R: tl.constexpr, TAPS: tl.constexpr, HIDDEN: tl.constexpr, RP: tl.constexpr, KP: tl.constexpr,
    BT: tl.constexpr, BK: tl.constexpr, BD: tl.constexpr, ACT: tl.constexpr,
    MASK: tl.constexpr, PARTIAL: tl.constexpr, INPUT_GRAD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program: BT tokens, all channels. Writes d_pre and, if wanted, dx [batch, tokens, D].

    pre, d_pre and mask are [batch, tokens, HIDDEN] of which this launch has R columns; dx starts from `partial`, the
    sum of the launches for other columns.
    """
    clip, token, place, window, m_exists, m_owned = locate(
        tl.program_id(0), batch, line_count, line_length, line_stride, position_stride, prefix,
        patch_tiles, per_tile, window, halo, segments, BT,
    )  # fmt: skip
    KC: tl.constexpr = TAPS * R
    column = tl.arange(0, KP)
    m_column = column < KC
    tap, hidden_row = column // R, column % R
    step = TAPS // 2 - tap  # the forward's, negated

    o_dy = clip * stride_dy_clip + token.to(tl.int64) * stride_dy_token
    o_up = hidden_row * stride_up_row + tap * stride_up_tap
    b_taps = project_rows(
        p_dy, o_dy, m_exists, stride_dy_channel, p_up, o_up, m_column, stride_up_channel, D, BT, BK, KP, PRECISION
    )
    b_grad = fold(b_taps, place, window, step, BT, R, RP, KC, KP, PRECISION, p_up.dtype.element_ty)  # [BT, RP]
    b_grad *= scale

    row = tl.arange(0, RP)
    m_row = row < R
    o_hidden = (clip * tokens + token) * HIDDEN  # [BT]
    m_hidden = m_exists[:, None] & m_row[None, :]
    if MASK:
        b_grad *= tl.load(p_mask + o_hidden[:, None] + row[None, :], mask=m_hidden, other=0.0)
    b_pre = tl.load(p_pre + o_hidden[:, None] + row[None, :], mask=m_hidden, other=0.0).to(tl.float32)
    b_grad = tl.where(m_exists[:, None], b_grad * activate_grad(b_pre, ACT), 0.0).to(p_dpre.dtype.element_ty)
    tl.store(p_dpre + o_hidden[:, None] + row[None, :], b_grad, mask=m_owned[:, None] & m_row[None, :])

    if INPUT_GRAD:
        b_unfolded = unfold(b_grad, place, window, step, BT, R, RP, KC, KP, PRECISION)
        o_down = hidden_row * stride_down_row + tap * stride_down_tap
        o_dx = (clip * tokens + token) * D
        for start in range(0, D, BD):
            channel = start + tl.arange(0, BD)
            b_weight = tl.load(
                p_down + o_down[:, None] + channel[None, :] * stride_down_channel, mask=m_column[:, None], other=0.0
            )
            b_dx = tl.dot(b_unfolded, b_weight, input_precision=PRECISION)
            if PARTIAL:
                b_dx += tl.load(p_partial + o_dx[:, None] + channel[None, :], mask=m_owned[:, None], other=0.0)
            tl.store(p_dx + o_dx[:, None] + channel[None, :], b_dx, mask=m_owned[:, None])


@triton.jit(do_not_specialize=CALL_ARGUMENTS)
def loaa_weight_grad_kernel(
    p_x, p_dy, p_mask, p_pre, p_dpre, p_ddown, p_dup,
    stride_x_clip, stride_x_token, stride_x_channel,
    stride_dy_clip, stride_dy_token, stride_dy_channel,
    scale,
    batch, line_count, line_length, line_stride, position_stride, prefix, tokens, chunk,
    D: tl.constexpr, R: tl.constexpr, TAPS: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr, BC: tl.constexpr,
    ACT: tl.constexpr, MASK: tl.constexpr, DOWN: tl.constexpr, UP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Program (split, channel block, column block): sums over `chunk` tokens into its own slice of the partial sums.

    p_ddown and p_dup are [splits, taps * R, D] float32, tap-major; they are added up afterwards, in a fixed order, so
    that the same inputs give the same bits. x and dy are read once for each block of columns; pre and d_pre are
    gathered once for each block of channels.
    """
    split = tl.program_id(0)
    channel = tl.program_id(1) * BD + tl.arange(0, BD)
    column = tl.program_id(2) * BC + tl.arange(0, BC)
    m_channel = channel < D
    m_column = column < TAPS * R
    step = column // R - TAPS // 2
    o_step = step * position_stride * R

    b_ddown = tl.zeros((BC, BD), tl.float32)
    b_dup = tl.zeros((BC, BD), tl.float32)
    end = tl.minimum((split + 1) * chunk, batch * tokens)
    for start in range(0, chunk, BM):
        flat = split * chunk + start + tl.arange(0, BM)
        m_flat = flat < end
        clip, token = (flat // tokens).to(tl.int64), flat % tokens
        # Position along the convolution axis; a prefix token has none and keeps its centre tap.
        patch = token - prefix
        position = tl.where(patch < 0, 0, patch // position_stride % line_length)
        length = tl.where(patch < 0, 1, line_length)
        o_hidden = (clip * tokens + token)[:, None] * R + (column % R)[None, :]
        m_hidden = m_flat[:, None] & m_column[None, :]
        m_tile = m_flat[:, None] & m_channel[None, :]
        if UP:
            # dU_up[tap] sums hidden[p + step] * dy[p]
            place = position[:, None] + step[None, :]
            m_there = m_hidden & (place >= 0) & (place < length[:, None])
            b_pre = tl.load(p_pre + o_hidden + o_step[None, :], mask=m_there, other=0.0)
            b_hidden = activate(b_pre.to(tl.float32), ACT) * scale  # zero where pre is: all activations are
            if MASK:
                b_hidden *= tl.load(p_mask + o_hidden + o_step[None, :], mask=m_there, other=0.0)
            o_dy = clip * stride_dy_clip + token.to(tl.int64) * stride_dy_token
            b_dy = tl.load(p_dy + o_dy[:, None] + channel[None, :] * stride_dy_channel, mask=m_tile, other=0.0)
            b_hidden, b_dy = b_hidden.to(b_pre.dtype), b_dy.to(b_pre.dtype)
            b_dup = tl.dot(tl.trans(b_hidden), b_dy, b_dup, input_precision=PRECISION)
        if DOWN:
            # dU_down[tap] sums d_pre[p - step] * x[p]
            place = position[:, None] - step[None, :]
            m_there = m_hidden & (place >= 0) & (place < length[:, None])
            b_dpre = tl.load(p_dpre + o_hidden - o_step[None, :], mask=m_there, other=0.0)
            o_x = clip * stride_x_clip + token.to(tl.int64) * stride_x_token
            b_x = tl.load(p_x + o_x[:, None] + channel[None, :] * stride_x_channel, mask=m_tile, other=0.0)
            b_ddown = tl.dot(tl.trans(b_dpre), b_x.to(b_dpre.dtype), b_ddown, input_precision=PRECISION)

    o_partial = (split.to(tl.int64) * (TAPS * R) + column)[:, None] * D + channel[None, :]
    m_partial = m_column[:, None] & m_channel[None, :]
    if DOWN:
        tl.store(p_ddown + o_partial, b_ddown, mask=m_partial)
    if UP:
        tl.store(p_dup + o_partial, b_dup, mask=m_partial)
