"""LoAA as the paper writes it: two Conv2d over the token grid (section 2.3, equation 2). The yardstick of all else."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastloaa.activations import ACTIVATIONS
from fastloaa.grid import TokenGrid


def loaa_reference(
    x: Tensor,
    down_weight: Tensor,
    up_weight: Tensor,
    grid: TokenGrid,
    *,
    down_bias: Tensor | None = None,
    up_bias: Tensor | None = None,
    hidden_mask: Tensor | None = None,
    scale: float = 1.0,
    activation: str = "gelu",
) -> Tensor:
    """The branch alone, `scale * up(activation(down(x)) * hidden_mask)`.

    Args:
        x: [batch, tokens, dim].
        down_weight: [r, dim, kf, kt]; up_weight: [dim, r, kf, kt], odd kf and kt, zero "same" padding.
        down_bias: [r] or None; up_bias: [dim] or None.
        hidden_mask: [batch, tokens, r] or None, multiplied onto the hidden activations (dropout).

    Returns:
        [batch, tokens, dim]. A prefix token has no neighbours: it sees the centre tap alone.
    """
    act = ACTIVATIONS[activation].forward
    padding = (down_weight.shape[2] // 2, down_weight.shape[3] // 2)
    prefix, patches = x[:, : grid.prefix_tokens], x[:, grid.prefix_tokens :]

    hidden = act(F.conv2d(_to_image(patches, grid), down_weight, down_bias, padding=padding))  # [B, r, F, T]
    prefix_hidden = act(F.linear(prefix, down_weight[:, :, padding[0], padding[1]], down_bias))  # [B, P, r]
    if hidden_mask is not None:
        hidden = hidden * _to_image(hidden_mask[:, grid.prefix_tokens :], grid)
        prefix_hidden = prefix_hidden * hidden_mask[:, : grid.prefix_tokens]

    branch = _to_tokens(F.conv2d(hidden, up_weight, up_bias, padding=padding), grid)
    if grid.prefix_tokens:
        prefix_branch = F.linear(prefix_hidden, up_weight[:, :, padding[0], padding[1]], up_bias)
        branch = torch.cat((prefix_branch, branch), dim=1)
    return branch * scale


def _to_image(patches: Tensor, grid: TokenGrid) -> Tensor:
    """[B, F*T, c] in the grid's token order -> [B, c, F, T]."""
    image = patches.unflatten(1, grid.rows_cols)  # [B, rows, cols, c]
    return image.permute(0, 3, 1, 2) if grid.token_order == "freq" else image.permute(0, 3, 2, 1)


def _to_tokens(image: Tensor, grid: TokenGrid) -> Tensor:
    """[B, c, F, T] -> [B, F*T, c] in the grid's token order."""
    return (image if grid.token_order == "freq" else image.transpose(2, 3)).flatten(2).transpose(1, 2)
