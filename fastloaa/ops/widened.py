"""The pass between a merged model's widened GEMMs as a torch.library op that writes in place."""

import torch
from torch import Tensor

from fastloaa.grid import TokenGrid
from fastloaa.kernels import widened_launch
from fastloaa.ops.activations import ACTIVATIONS

# What CPU tensors get is registered by `fastloaa.ops.cpu`. An op that returns nothing has PyTorch's own fake.
widened_op = torch.library.custom_op(
    "fastloaa::widened_activation_", widened_launch.run, mutates_args=("buffer",), device_types="cuda"
)


def widened_activation_(
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
    """Activate the output of a merged block's widened Linear in place: the block's columns and the adapter's.

    The `taps * rank` columns from `start` on, taps = kf * kt, come as products of the normed input with U_down,
    tap-major (column start + tap * rank + row), biases in the centre tap. They leave as the shifted copies that the
    U_up columns of the next Linear multiply: `unfold(activation(fold(columns)))` of `fastloaa.ops.shifts`. Sums and
    activations are taken in float32.

    Args:
        buffer: [batch, tokens, width] float32, float16 or bfloat16, or a window of a wider one; columns beyond the
            adapter's are left alone.
        start: number of the block's own columns, before the adapter's.
        rank: hidden rows of the adapter.
        kf, kt: the adapter's kernel, (frequency, time).
        freq_bins, prefix_tokens, time_major: the grid, see `fastloaa.TokenGrid`.
        activation: of the adapter: "gelu" (exact), "gelu_tanh", "relu" or "silu".
        wide_activation: of the block's own columns, "" for none (q, k and v of an attention site).

    Raises:
        ValueError: columns, grid or activation that do not fit; on a GPU what `widened_launch.obstacle` names.
        RuntimeError: a gradient is wanted, of which there is none.
    """
    taps = kf * kt
    if buffer.dim() != 3 or start < 0 or rank < 1 or start + taps * rank > buffer.shape[2]:
        raise ValueError(
            f"{start} columns and {taps} taps * {rank} hidden rows do not fit a buffer of shape {tuple(buffer.shape)}; "
            f"expected [batch, tokens, at least {start + taps * rank}]"
        )
    if activation not in ACTIVATIONS or (wide_activation and wide_activation not in ACTIVATIONS):
        raise ValueError(
            f"activations are of {', '.join(ACTIVATIONS)}, wide_activation may be empty; "
            f"got {activation!r} and {wide_activation!r}"
        )
    TokenGrid.from_tokens(buffer.shape[1], freq_bins, prefix_tokens)
    if torch.is_grad_enabled() and buffer.requires_grad:
        raise RuntimeError("widened_activation_ has no gradient; run the merged model under torch.no_grad()")
    widened_op(buffer, start, rank, kf, kt, freq_bins, prefix_tokens, time_major, activation, wide_activation)
