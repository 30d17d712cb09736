"""What an exported file computes, as a PyTorch module."""

import copy
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from fastloaa.adapters.follow import set_grid
from fastloaa.adapters.loaa import LoAA
from fastloaa.adapters.record import adapt_config, is_adapted
from fastloaa.adapters.widened import WidenedAttention, WidenedMlp
from fastloaa.backbones import Backbone, OpenBlock, backbone_of
from fastloaa.backbones.parts import AttentionParts, attention_parts
from fastloaa.export.graph_blocks import GraphAttention, GraphLoAA, GraphMlp, ReadOutBlock
from fastloaa.models import AST
from fastloaa.probabilities import Probabilities, probabilities_of, to_probabilities

Adapters = Literal["gemm", "conv2d"]
ModelT = TypeVar("ModelT", bound=nn.Module)


class Inference(nn.Module):
    """A model from its input to logits and probabilities, in the form that is exported.

    A row without samples, or with one that is not finite, gives NaN.

    Holds a copy of the model on the CPU in evaluation mode; the model itself is left as it is.

    Args:
        model: `AST`, or a timm VisionTransformer or Eva; adapted, merged or neither.
        waveform: for `AST`: read waveforms, by the model's front end, else what the front end returns.
        half: float16 weights and arithmetic; input, front end, head and outputs stay float32.
        probabilities: "softmax" or "sigmoid"; None: the model's own.
        adapters: how those that are not merged are written: one product each way and shifted sums, or Conv2d as in the
            paper.
    """

    def __init__(
        self,
        model: nn.Module,
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
        backbone = backbone_of(self.model)
        if adapt_config(self.model) is not None or not is_adapted(self.model):  # other methods change what blocks are
            set_grid(self.model, backbone.grid)
            _rewrite(backbone, adapters)
        backbone.trunk.to(self.dtype)
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


def _rewrite(backbone: Backbone, adapters: Adapters) -> None:
    """Give the blocks of a copy the form of graphs; what has none stays as it is."""
    blocks, tokens, read = backbone.blocks, backbone.grid.tokens, backbone.tokens_read
    last = len(blocks) - 1
    for index, block in enumerate(blocks):
        layout = block.layout if isinstance(block, OpenBlock) else backbone.layout(index, block)
        attn = _graph_parts(getattr(block, layout.attn))
        if index == last and read is not None and attn is not None:
            blocks[index] = ReadOutBlock(block, layout, attn, tokens, read)
            continue
        if attn is not None:
            setattr(block, layout.attn, GraphAttention(attn, tokens))
        for name, child in list(block.named_children()):
            if isinstance(child, WidenedMlp):
                setattr(block, name, GraphMlp(child, tokens))
            elif isinstance(child, LoAA) and adapters == "gemm":
                setattr(block, name, GraphLoAA(child, tokens))
            elif isinstance(child, LoAA):
                child.backend = "reference"


def _graph_parts(attn: nn.Module) -> AttentionParts | WidenedAttention | None:
    if isinstance(attn, WidenedAttention):
        return attn
    parts = attention_parts(attn)
    return parts if parts is not None and parts.is_linear else None
