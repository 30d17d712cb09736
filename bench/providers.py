"""What is timed against each other: every way of writing LoAA that a user might have, as functions of one signature.

`branch(x, down, up, grid) -> [batch, tokens, dim]`; the summands are added as each way would add them.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from fastloaa.grid import TokenGrid
from fastloaa.ops.functional import loaa
from fastloaa.ops.products import product

Provider = Callable[..., Tensor]


def _library(backend: str, x: Tensor, down: Tensor, up: Tensor, grid: TokenGrid, *summands: Tensor) -> Tensor:
    block_out, skip = summands or (None, None)
    return loaa(
        x,
        down,
        up,
        freq_bins=grid.freq_bins,
        prefix_tokens=grid.prefix_tokens,
        token_order=grid.token_order,
        block_out=block_out,
        skip=skip,
        backend=backend,  # type: ignore[arg-type]
    )


def _with_prefix(x: Tensor, patches: Tensor, down: Tensor, up: Tensor, grid: TokenGrid, summands: tuple) -> Tensor:
    """Put the prefix tokens' own branch (centre tap) before the patches', and add the summands."""
    kf, kt = down.shape[2] // 2, down.shape[3] // 2
    prefix = F.linear(F.gelu(F.linear(x[:, : grid.prefix_tokens], down[:, :, kf, kt])), up[:, :, kf, kt])
    out = torch.cat((prefix, patches), dim=1)
    for summand in summands:
        out = out + summand
    return out


def conv2d_nchw(x: Tensor, down: Tensor, up: Tensor, grid: TokenGrid, *summands: Tensor) -> Tensor:
    """As a user writes it from the paper: tokens to a contiguous NCHW image, two Conv2d, and back."""
    padding = (down.shape[2] // 2, down.shape[3] // 2)
    image = x[:, grid.prefix_tokens :].transpose(1, 2).reshape(-1, x.shape[2], grid.freq_bins, grid.time_steps)
    hidden = F.gelu(F.conv2d(image.contiguous(), down.contiguous(), padding=padding))
    patches = F.conv2d(hidden, up.contiguous(), padding=padding).flatten(2).transpose(1, 2)
    return _with_prefix(x, patches, down, up, grid, summands)


def conv1d(x: Tensor, down: Tensor, up: Tensor, grid: TokenGrid, *summands: Tensor) -> Tensor:
    """Rows (or columns) of the grid as a batch of Conv1d."""
    taps, time = down.shape[2] * down.shape[3], down.shape[3] >= down.shape[2]
    lines = x[:, grid.prefix_tokens :].unflatten(1, (grid.freq_bins, grid.time_steps))
    lines = lines if time else lines.transpose(1, 2)  # [B, lines, length, d]
    signal = lines.flatten(0, 1).transpose(1, 2)
    hidden = F.gelu(F.conv1d(signal, down.flatten(2), padding=taps // 2))
    out = F.conv1d(hidden, up.flatten(2), padding=taps // 2).transpose(1, 2).unflatten(0, lines.shape[:2])
    out = out if time else out.transpose(1, 2)
    return _with_prefix(x, out.flatten(1, 2), down, up, grid, summands)


def two_gemms(x: Tensor, down: Tensor, up: Tensor, grid: TokenGrid, *summands: Tensor) -> Tensor:
    """No adapter: only its two matrix products. What the "torch" backend cannot go below."""
    hidden = product(x.flatten(0, 1), down.permute(2, 3, 0, 1).flatten(0, 2))
    return product(hidden, up.permute(0, 2, 3, 1).flatten(1)).view_as(x)


def fused_runs(device: torch.device) -> bool:
    """Whether the fused kernel can be timed: on a GPU, not under Triton's interpreter."""
    return device.type == "cuda"


FUSED: Provider = partial(_library, "triton")

# The reference reads the tokens through a permuted view, which is a channels_last image.
EAGER: dict[str, Provider] = {
    "conv2d": conv2d_nchw,
    "conv2d-channels_last": partial(_library, "reference"),
    "conv1d": conv1d,
    "torch": partial(_library, "torch"),
}


def compiled(provider: Provider) -> Provider:
    """torch.compile with autotuning, as a user who wants the most would call it."""
    return torch.compile(provider, mode="max-autotune-no-cudagraphs", dynamic=False)
