"""LoAA as the paper writes it: two Conv2d over the token grid (section 2.3, equation 2). The yardstick of all else."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastloaa.grid import TokenGrid, grid_of
from fastloaa.kernels.call import Call
from fastloaa.ops.activations import ACTIVATIONS


def loaa_reference(call: Call) -> Tensor:
    """Branch plus summands [batch, tokens, dim]. A prefix token has no neighbours: it sees the centre tap alone."""
    act, grid = ACTIVATIONS[call.activation].forward, grid_of(call)
    kf, kt = call.kernel
    padding = (kf // 2, kt // 2)
    prefix, patches = call.x[:, : grid.prefix_tokens], call.x[:, grid.prefix_tokens :]

    hidden = act(F.conv2d(_to_image(patches, grid), call.down, call.down_bias, padding=padding))  # [B, r, F, T]
    prefix_hidden = act(F.linear(prefix, call.down[:, :, padding[0], padding[1]], call.down_bias))  # [B, P, r]
    if call.mask is not None:
        hidden = hidden * _to_image(call.mask[:, grid.prefix_tokens :], grid)
        prefix_hidden = prefix_hidden * call.mask[:, : grid.prefix_tokens]

    out = _to_tokens(F.conv2d(hidden, call.up, call.up_bias, padding=padding), grid)
    if grid.prefix_tokens:
        prefix_branch = F.linear(prefix_hidden, call.up[:, :, padding[0], padding[1]], call.up_bias)
        out = torch.cat((prefix_branch, out), dim=1)
    out = out * call.scale
    for summand in call.summands:
        out = out + summand
    return out


def _to_image(patches: Tensor, grid: TokenGrid) -> Tensor:
    """[B, F*T, c] in the grid's token order -> [B, c, F, T]."""
    image = patches.unflatten(1, grid.rows_cols)  # [B, rows, cols, c]
    return image.permute(0, 3, 1, 2) if grid.token_order == "freq" else image.permute(0, 3, 2, 1)


def _to_tokens(image: Tensor, grid: TokenGrid) -> Tensor:
    """[B, c, F, T] -> [B, F*T, c] in the grid's token order."""
    return (image if grid.token_order == "freq" else image.transpose(2, 3)).flatten(2).transpose(1, 2)
