"""AAT, Adapting Audio Transformer (Liang et al., 2024): two bottleneck adapters in each block."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastloaa.backbones import BlockLayout, OpenBlock, backbone_of
from fastloaa.inputs.options import check_at_least, check_types
from fastloaa.methods.inserted import InsertedMethod, like
from fastloaa.models import AST


@dataclass(frozen=True)
class AATMethod(InsertedMethod):
    """An adapter after self-attention ("spatial") and one beside the MLP, 192 wide in AAT's own experiments."""

    name: ClassVar[str] = "aat"

    bottleneck: int = 192

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least(self, "bottleneck", 1)

    def insert(self, model: AST) -> None:
        backbone = backbone_of(model)
        for index, block in enumerate(backbone.blocks):
            layout = backbone.layout(index, block)
            backbone.blocks[index] = AATBlock(block, layout, backbone.dim, self.bottleneck)


class AATBlock(OpenBlock):
    """A block whose attention's output a goes on as a + spatial(a), and whose MLP has an adapter beside it."""

    def __init__(self, block: nn.Module, layout: BlockLayout, dim: int, bottleneck: int) -> None:
        super().__init__(block, layout)
        self.spatial_adapter = Bottleneck(dim, bottleneck, **like(block))
        self.mlp_adapter = Bottleneck(dim, bottleneck, **like(block))
        self.train(block.training)

    def forward(self, x: Tensor, **attention: Any) -> Tensor:
        """[batch, tokens, dim] -> the same; keyword arguments (attn_mask, ...) go to the attention."""
        out = self.attend(self.norm_attn(x), **attention)
        x = x + self.after_attention(out + self.spatial_adapter(out))
        normed = self.norm_ffn(x)
        return x + self.ffn_out(normed) + self.mlp_adapter(normed)


class Bottleneck(nn.Module):
    """Linear, GELU, Linear, with biases; starts at zero, since the second Linear does."""

    def __init__(
        self, dim: int, bottleneck: int, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.down = nn.Linear(dim, bottleneck, device=device, dtype=dtype)
        self.up = nn.Linear(bottleneck, dim, device=device, dtype=dtype)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., dim] -> the branch alone, the same shape."""
        return self.up(F.gelu(self.down(x)))
