"""What an exported file computes, as a PyTorch module."""

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
from fastloaa.export.opsets import ATTENTION, DEFAULT
from fastloaa.export.sharing import sharing_copy
from fastloaa.models import AST
from fastloaa.probabilities import Probabilities, probabilities_of, to_probabilities

Adapters = Literal["gemm", "conv2d"]
ModelT = TypeVar("ModelT", bound=nn.Module)


class Inference(nn.Module):
    """A model from its input to logits and probabilities, in the form that is exported.

    A row without samples, with one that is not finite, or of such large ones that their spectrum is not, gives NaN.

    Holds a copy of the model on the CPU in evaluation mode, see `plain_copy`; the model itself is left as it is.

    Args:
        model: `AST`, or a timm VisionTransformer or Eva; adapted, merged or neither.
        waveform: for `AST`: read waveforms, by the model's front end, else what the front end returns.
        half: float16 weights and arithmetic; input, front end, head and outputs stay float32.
        probabilities: "softmax" or "sigmoid"; None: the model's own.
        adapters: how those that are not merged are written: one product each way and shifted sums, or Conv2d as in the
            paper.
        opset: version of the ONNX operators that there will be; decides how attention is written.
        embedding: return what the head reads too.
    """

    def __init__(
        self,
        model: nn.Module,
        waveform: bool = True,
        *,
        half: bool = False,
        probabilities: Probabilities | None = None,
        adapters: Adapters = "gemm",
        opset: int = DEFAULT,
        embedding: bool = False,
    ) -> None:
        super().__init__()
        self.model = plain_copy(model)
        self.waveform, self.dtype = waveform, torch.float16 if half else torch.float32
        self.probabilities = probabilities or probabilities_of(model)
        self.embedding = embedding
        backbone = backbone_of(self.model)
        if adapt_config(self.model) is not None or not is_adapted(self.model):  # other methods change what blocks are
            set_grid(self.model, backbone.grid)
            _rewrite(backbone, adapters, opset >= ATTENTION)
        backbone.trunk.to(self.dtype)
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Waveform [batch, samples], log-mel [batch, frames, mel_bins] or image [batch, channels, height, width] ->
        logits, probabilities [batch, classes], and embedding [batch, dim] where it is asked for."""
        inner = self.model.front_end(x) if isinstance(self.model, AST) and self.waveform else x
        logits, embedding = answers(self.model, inner.to(self.dtype))
        # NaN for a row that is empty or not finite, which padding and 8 bits would make an answer of; else 0.
        values = x.flatten(1)
        total = values.sum(dim=1, keepdim=True)
        if inner is not x:
            total = total + inner.flatten(1).sum(dim=1, keepdim=True)
        unusable = 0 * total / values.shape[1]  # runtimes have a mean of nothing
        logits = logits + unusable
        outputs = logits, to_probabilities(logits, self.probabilities)
        return (*outputs, embedding + unusable) if self.embedding else outputs


def answers(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """A model's logits [batch, classes] and the embedding [batch, dim] that its head reads, both float32.

    Args:
        model: `AST`, or one of timm's, of which DeiT's distilled have two heads: the mean of what these read.
        x: log-mel [batch, frames, mel_bins], or image [batch, channels, height, width].
    """
    if isinstance(model, AST):
        embedding = model.embed(x).float()
        return model.head(embedding), embedding
    features = model.forward_features(x)  # type: ignore[operator]
    return tuple(model.forward_head(features, pre_logits=pre).float() for pre in (False, True))  # type: ignore[operator]


def plain_copy(model: ModelT) -> ModelT:
    """A float32 copy on the CPU in evaluation mode, in the memory of weights that are float32 on the CPU."""
    return sharing_copy(model).cpu().float()


def _rewrite(backbone: Backbone, adapters: Adapters, operator: bool) -> None:
    """Give the blocks of a copy the form of graphs; what has none stays as it is. operator: see `GraphAttention`."""
    blocks, tokens, read = backbone.blocks, backbone.grid.tokens, backbone.tokens_read
    last = len(blocks) - 1
    for index, block in enumerate(blocks):
        layout = block.layout if isinstance(block, OpenBlock) else backbone.layout(index, block)
        attn = _graph_parts(getattr(block, layout.attn))
        if index == last and read is not None and attn is not None:
            blocks[index] = ReadOutBlock(block, layout, attn, tokens, read, operator)
            continue
        if attn is not None:
            setattr(block, layout.attn, GraphAttention(attn, tokens, operator=operator))
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
