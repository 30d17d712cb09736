"""What an exported file computes, as a PyTorch module."""

import copy
from typing import Literal, TypeVar

import torch
from timm.layers import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from fastloaa.adapt import AdaptedBlock, adapt_config, is_adapted, token_grid, vision_transformer
from fastloaa.adapter import LoAA
from fastloaa.export.graph_blocks import GraphAttention, GraphLoAA, GraphMlp, ReadOutBlock
from fastloaa.follow import set_grid
from fastloaa.models import AST
from fastloaa.probabilities import Probabilities, probabilities_of, to_probabilities
from fastloaa.widened import WidenedAttention, WidenedMlp

Adapters = Literal["gemm", "conv2d"]
ModelT = TypeVar("ModelT", bound=nn.Module)


class Inference(nn.Module):
    """A model from its input to logits and probabilities, in the form that is exported.

    A row without samples, or with one that is not finite, gives NaN.

    Holds a copy of the model on the CPU in evaluation mode; the model itself is left as it is.

    Args:
        model: `AST`, or a timm VisionTransformer; adapted, merged or neither.
        waveform: for `AST`: read waveforms, by the model's front end, else what the front end returns.
        half: float16 weights and arithmetic; input, front end, head and outputs stay float32.
        probabilities: "softmax" or "sigmoid"; None: the model's own.
        adapters: how those that are not merged are written: one product each way and shifted sums, or Conv2d as in the
            paper.
    """

    def __init__(
        self,
        model: AST | VisionTransformer,
        waveform: bool = True,
        *,
        half: bool = False,
        probabilities: Probabilities | None = None,
        adapters: Adapters = "gemm",
    ) -> None:
        super().__init__()
        self.model = plain_copy(model)
        self.waveform, self.dtype = waveform, torch.float16 if half else torch.float32
        self.probabilities = probabilities or probabilities_of(model)
        vit = vision_transformer(self.model)
        if adapt_config(self.model) is not None or not is_adapted(self.model):  # other methods change what blocks are
            grid = token_grid(self.model)
            set_grid(self.model, grid)
            _rewrite(vit, grid.tokens, _tokens_read(self.model), adapters)
        vit.to(self.dtype)
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Waveform [batch, samples], log-mel [batch, frames, mel_bins] or image [batch, channels, height, width] ->
        logits, probabilities [batch, classes]."""
        if isinstance(self.model, AST):
            log_mel = self.model.front_end(x) if self.waveform else x
            logits = self.model.head(self.model.embed(log_mel.to(self.dtype)).float())
        else:
            logits = self.model(x.to(self.dtype)).float()
        # NaN for a row that is empty or not finite, which padding and 8 bits would make an answer of; else 0.
        values = x.flatten(1)
        logits = logits + 0 * values.sum(dim=1, keepdim=True) / values.shape[1]  # runtimes have a mean of nothing
        return logits, to_probabilities(logits, self.probabilities)


def plain_copy(model: ModelT) -> ModelT:
    """A float32 copy on the CPU in evaluation mode."""
    return copy.deepcopy(model).cpu().float().requires_grad_(False).eval()


def image_size(model: VisionTransformer) -> tuple[int, int, int]:
    """(channels, height, width) of what a timm model reads."""
    height, width = model.patch_embed.img_size
    return model.patch_embed.proj.in_channels, height, width


def _rewrite(vit: VisionTransformer, tokens: int, read: int | None, adapters: Adapters) -> None:
    """Give the blocks of a copy the form of graphs; what has none stays as it is."""
    last = vit.blocks[-1]
    if read is not None and type(last) in (Block, AdaptedBlock) and _has_graph_form(last.attn):
        vit.blocks[-1] = ReadOutBlock(last, tokens, read)
    for block in vit.blocks:
        for name, child in list(block.named_children()):
            if isinstance(child, WidenedMlp):
                setattr(block, name, GraphMlp(child, tokens))
            elif _has_graph_form(child):
                setattr(block, name, GraphAttention(child, tokens))
            elif isinstance(child, LoAA) and adapters == "gemm":
                setattr(block, name, GraphLoAA(child, tokens))
            elif isinstance(child, LoAA):
                child.backend = "reference"


def _has_graph_form(attn: nn.Module) -> bool:
    """Attention whose Linears are just that: others, such as LoRA's, are more than their weights."""
    if type(attn) is not Attention and not isinstance(attn, WidenedAttention):
        return False
    return type(attn.qkv) is nn.Linear and type(attn.proj) is nn.Linear


def _tokens_read(model: AST | VisionTransformer) -> int | None:
    """How many tokens, counted from the first, the head can do with; None: all of them."""
    vit, prefix = vision_transformer(model), token_grid(model).prefix_tokens
    if isinstance(model, AST):
        return prefix if prefix > vit.num_reg_tokens else None
    return prefix if prefix and vit.global_pool == "token" and vit.attn_pool is None else None
