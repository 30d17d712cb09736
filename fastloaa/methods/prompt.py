"""Visual prompt tuning (Jia et al., ECCV 2022): learned tokens among those of the clip."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastloaa.backbones import BlockLayout, OpenBlock, backbone_of
from fastloaa.errors import ArgumentTypeError
from fastloaa.inputs.options import check_at_least, check_types
from fastloaa.methods.inserted import InsertedMethod, like
from fastloaa.models import AST


@dataclass(frozen=True)
class PromptMethod(InsertedMethod):
    """Learned tokens between the prefix tokens (cls, dist) and the patches.

    They leave after the last block, so whatever pools the tokens or lays them on a grid finds those that it knows. The
    model does not start as the plain one: its tokens attend to the new ones at once.

    Attributes:
        tokens: how many.
        deep: new ones for every block (VPT-deep) instead of one set before the first (VPT-shallow).
    """

    name: ClassVar[str] = "prompt"

    tokens: int = 50
    deep: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least(self, "tokens", 1)

    def insert(self, model: AST) -> None:
        if getattr(model.backbone, "rope", None) is not None:
            raise ArgumentTypeError(
                "the method prompt puts tokens between the prefix tokens and the patches, where rotary positions "
                "expect patches alone; choose a backbone with learned positions, or another method"
            )
        backbone = backbone_of(model)
        blocks, last = backbone.blocks, len(backbone.blocks) - 1
        fan_in = model.backbone.patch_embed.proj.weight[0].numel()
        bound = math.sqrt(6 / (fan_in + backbone.dim))  # VPT's: Xavier's of the patch embedding
        for index, block in enumerate(blocks):
            enter, leave = self.deep or index == 0, self.deep or index == last
            if enter or leave:
                prompts = (self.tokens, model.grid.prefix_tokens, bound)
                layout = backbone.layout(index, block)
                blocks[index] = PromptedBlock(block, layout, backbone.dim, *prompts, enter=enter, leave=leave)


class PromptedBlock(OpenBlock):
    """A block before which prompts enter the sequence, after which they leave it, or both."""

    def __init__(
        self,
        block: nn.Module,
        layout: BlockLayout,
        dim: int,
        tokens: int,
        prefix_tokens: int,
        bound: float,
        *,
        enter: bool,
        leave: bool,
    ) -> None:
        super().__init__(block, layout)
        self.tokens, self.prefix_tokens, self.leave = tokens, prefix_tokens, leave
        self.prompt: nn.Parameter | None = None
        if enter:
            self.prompt = nn.Parameter(torch.empty(1, tokens, dim, **like(block)).uniform_(-bound, bound))
        self.train(block.training)

    def forward(self, x: Tensor, **attention: Any) -> Tensor:
        """[batch, tokens, dim] -> the same with more or fewer tokens; keyword arguments go to the attention."""
        if self.prompt is not None:
            prompt = self.prompt.to(x.dtype).expand(len(x), -1, -1)
            x = torch.cat((x[:, : self.prefix_tokens], prompt, x[:, self.prefix_tokens :]), 1)
        x = x + self.attention_out(self.norm_attn(x), **attention)
        x = x + self.ffn_out(self.norm_ffn(x))
        if self.leave:
            x = torch.cat((x[:, : self.prefix_tokens], x[:, self.prefix_tokens + self.tokens :]), 1)
        return x
