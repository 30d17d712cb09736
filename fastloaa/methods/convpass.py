"""Convpass, convolutional bypasses (Jie and Deng, 2022, arXiv:2207.07039): LoAA's nearest relative in vision."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastloaa.adapters.follow import follow_grid
from fastloaa.backbones import BlockLayout, OpenBlock, backbone_of
from fastloaa.grid import TokenGrid
from fastloaa.inputs.options import check_at_least, check_fraction, check_types
from fastloaa.methods.inserted import InsertedMethod, like
from fastloaa.models import AST


@dataclass(frozen=True)
class ConvpassMethod(InsertedMethod):
    """A bottleneck with a 3 x 3 convolution inside, beside attention and FFN, on the normed input of both.

    Attributes:
        bottleneck: hidden width, 8 in the paper.
        scale: the paper's s, which it searches from 0.01 to 10 for each task.
        dropout: probability of dropping a hidden activation in training, 0.1 in the authors' code.
    """

    name: ClassVar[str] = "convpass"

    bottleneck: int = 8
    scale: float = 1.0
    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least(self, "bottleneck", 1)
        check_fraction(self, "dropout")

    def insert(self, model: AST) -> None:
        backbone = backbone_of(model)
        for index, block in enumerate(backbone.blocks):
            layout = backbone.layout(index, block)
            backbone.blocks[index] = ConvpassBlock(block, layout, backbone.dim, backbone.grid, self)
        follow_grid(backbone)


class ConvpassBlock(OpenBlock):
    """A block with two bypasses, which share the DropPath of what they stand beside."""

    def __init__(
        self, block: nn.Module, layout: BlockLayout, dim: int, grid: TokenGrid, options: ConvpassMethod
    ) -> None:
        super().__init__(block, layout)
        self.convpass_attn = Convpass(dim, options.bottleneck, grid, options.dropout, **like(block))
        self.convpass_ffn = Convpass(dim, options.bottleneck, grid, options.dropout, **like(block))
        self.scale = options.scale
        self.train(block.training)

    def forward(self, x: Tensor, **attention: Any) -> Tensor:
        """[batch, tokens, dim] -> the same; keyword arguments (attn_mask, ...) go to the attention."""
        normed = self.norm_attn(x)
        bypass = self.dropped(self.convpass_attn(normed), self.layout.drop1)
        x = x + self.attention_out(normed, **attention) + self.scale * bypass
        normed = self.norm_ffn(x)
        return x + self.ffn_out(normed) + self.scale * self.dropped(self.convpass_ffn(normed), self.layout.drop2)


class Convpass(nn.Module):
    """Linear, QuickGELU, 3 x 3 convolution over the grid, QuickGELU, Linear; prefix tokens see its centre tap.

    Starts at zero, since `up` does; the convolution starts as the identity.
    """

    def __init__(
        self,
        dim: int,
        bottleneck: int,
        grid: TokenGrid,
        dropout: float = 0.0,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.freq_bins, self.prefix_tokens = grid.freq_bins, grid.prefix_tokens
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.down = nn.Linear(dim, bottleneck, **factory)
        self.conv = nn.Conv2d(bottleneck, bottleneck, 3, padding=1, **factory)
        self.dropout = nn.Dropout(dropout)
        self.up = nn.Linear(bottleneck, dim, **factory)
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.dirac_(self.conv.weight)
        nn.init.zeros_(self.up.weight)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)

    def set_grid(self, grid: TokenGrid) -> None:
        """Keep to another grid, as `LoAA.set_grid`."""
        self.freq_bins, self.prefix_tokens = grid.freq_bins, grid.prefix_tokens

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens, dim], frequency-major after the prefix tokens -> the branch, the same shape."""
        hidden = _quick_gelu(self.down(x))
        image = hidden[:, self.prefix_tokens :].unflatten(1, (self.freq_bins, -1)).permute(0, 3, 1, 2)
        patches = self.conv(image).flatten(2).transpose(1, 2)
        # A prefix token is an image of one pixel: of the nine taps only the centre meets anything but padding.
        prefix = F.linear(hidden[:, : self.prefix_tokens], self.conv.weight[:, :, 1, 1], self.conv.bias)
        return self.up(self.dropout(_quick_gelu(torch.cat((prefix, patches), 1))))


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)
