"""LoAA backward, second half: both weight gradients in one launch, and one that adds up its parts."""

import triton
import triton.language as tl

from fastloaa.kernels.tile import CALL_ARGUMENTS


@triton.jit(do_not_specialize=CALL_ARGUMENTS)
def loaa_weight_grad_kernel(
    p_x, p_dy, p_hidden, p_dpre, p_partial,
    stride_x_token, stride_dy_token,
    rows, line_length, position_stride, prefix, tokens, chunk,
    D: tl.constexpr, R: tl.constexpr, TAPS: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr, BC: tl.constexpr,
    STAGES: tl.constexpr, DOWN: tl.constexpr, UP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Program (split, gradient and channel block, column block): the sum over `chunk` tokens of one gradient.

    x and dy are [rows, D], a token a row and rows evenly spaced; hidden and d_pre [rows, R]. The partial sums are
    [gradients, splits, taps * R, D] float32, tap-major; `loaa_weight_sum_kernel` adds them in a fixed order, so that
    the same inputs give the same bits. x and dy are read once for each block of columns, hidden and d_pre once for
    each block of channels and tap.
    """
    blocks: tl.constexpr = (D + BD - 1) // BD
    gradient = tl.program_id(1) // blocks
    column = tl.program_id(2) * BC + tl.arange(0, BC)
    channel = tl.program_id(1) % blocks * BD + tl.arange(0, BD)
    m_column, m_channel = column < TAPS * R, channel < D
    step = (column // R - TAPS // 2) * position_stride  # in tokens, [BC]
    if DOWN and UP:  # dtypes are alike; `where`, unlike a branch, keeps what is known of alignment
        p_narrow, p_wide = tl.where(gradient == 0, p_dpre, p_hidden), tl.where(gradient == 0, p_x, p_dy)
        stride_token = tl.where(gradient == 0, stride_x_token, stride_dy_token)
        step = tl.where(gradient == 0, -step, step)
    elif DOWN:  # dU_down[tap] sums d_pre[p - step] * x[p]
        p_narrow, p_wide, stride_token, step = p_dpre, p_x, stride_x_token, -step
    else:  # dU_up[tap] sums hidden[p + step] * dy[p]
        p_narrow, p_wide, stride_token = p_hidden, p_dy, stride_dy_token

    # Which neighbours exist is kept up to date from block to block, without a division. Along the axis of the kernel
    # the grid repeats every `period` patches, and a neighbour exists if it lies in the same period.
    first = tl.program_id(0) * chunk
    end = tl.minimum(first + chunk, rows)
    period = line_length * position_stride
    row = tl.arange(0, BM)
    token = (first + row) % tokens
    phase = (token + prefix * period - prefix) % period  # of 32 bits, which tokens * period is not for long clips
    ahead, ahead_phase, prefix_phase = BM % tokens, BM % tokens % period, prefix % period
    o_column = step * R + column % R
    b_sum = tl.zeros((BC, BD), tl.float32)
    for start in tl.range(first, end, BM, num_stages=STAGES):
        m_row = start + row < end
        is_prefix = token < prefix  # has its centre tap alone
        before = tl.where(is_prefix, 0, -phase)[None, :]
        behind = tl.where(is_prefix, 1, period - phase)[None, :]
        m_there = (step[:, None] >= before) & (step[:, None] < behind) & m_row[None, :] & m_column[:, None]
        number = (start + row).to(tl.int64)
        b_narrow = tl.load(p_narrow + (number * R)[None, :] + o_column[:, None], mask=m_there, other=0.0)
        p_tile = p_wide + (number * stride_token)[:, None] + channel[None, :]
        b_wide = tl.load(p_tile, mask=m_row[:, None] & m_channel[None, :], other=0.0).to(b_narrow.dtype)
        b_sum = tl.dot(b_narrow, b_wide, b_sum, input_precision=PRECISION)

        token += ahead
        phase += ahead_phase
        phase = tl.where(phase >= period, phase - period, phase)
        next_clip = token >= tokens
        token = tl.where(next_clip, token - tokens, token)
        phase = tl.where(next_clip, phase - prefix_phase, phase)
        phase = tl.where(phase < 0, phase + period, phase)

    slice_ = (gradient * tl.num_programs(0) + tl.program_id(0)).to(tl.int64) * (TAPS * R)
    p_tile = p_partial + (slice_ + column)[:, None] * D + channel[None, :]
    tl.store(p_tile, b_sum, mask=m_column[:, None] & m_channel[None, :])


@triton.jit(do_not_specialize=["splits"])
def loaa_weight_sum_kernel(
    p_partial, p_ddown, p_dup, splits,
    D: tl.constexpr, R: tl.constexpr, TAPS: tl.constexpr, BC: tl.constexpr, BD: tl.constexpr,
    DOWN: tl.constexpr, UP: tl.constexpr,
):  # fmt: skip
    """Sums of [gradients, splits, taps * R, D] in order, stored as channels_last: down [R, taps, D], up [D, taps, R].

    Program (column block, channel block, gradient).
    """
    gradient = tl.program_id(2)
    column = tl.program_id(0) * BC + tl.arange(0, BC)
    channel = tl.program_id(1) * BD + tl.arange(0, BD)
    m_tile = (column < TAPS * R)[:, None] & (channel < D)[None, :]
    o_tile = column[:, None] * D + channel[None, :]
    size: tl.constexpr = TAPS * R * D
    p_slices = p_partial + (gradient * splits).to(tl.int64) * size
    b_sum = tl.zeros((BC, BD), tl.float32)
    for _ in tl.range(0, splits, num_stages=5):
        b_sum += tl.load(p_slices + o_tile, mask=m_tile, other=0.0)
        p_slices += size
    if DOWN and (not UP or gradient == 0):
        o_down = (column % R * TAPS + column // R)[:, None] * D + channel[None, :]
        tl.store(p_ddown + o_down, b_sum, mask=m_tile)
    else:
        tl.store(p_dup + column[:, None] + channel[None, :] * (TAPS * R), b_sum, mask=m_tile)
