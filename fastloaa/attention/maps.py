"""Attention maps: where the tokens of a moment look (LoAA, section 4.2.1 and figure 3)."""

from typing import Any

import torch
from torch import Tensor, nn

from fastloaa.adapters.adapting import frozen_weights
from fastloaa.adapters.record import adapt_config, is_adapted
from fastloaa.adapters.widened import WidenedAttention, queries_keys_values
from fastloaa.backbones import OpenBlock, backbone_of
from fastloaa.backbones.parts import AttentionParts, attention_parts
from fastloaa.errors import ArgumentTypeError, FastloaaError
from fastloaa.grid import TokenGrid
from fastloaa.inputs import as_tensor, check_module
from fastloaa.models import AST


class AttentionError(FastloaaError, ValueError):
    """A layer, a moment or maps that do not fit the model."""


@torch.no_grad()
def attention_maps(model: nn.Module, log_mel: Tensor, layer: int = -1) -> Tensor:
    """The attention weights of one layer, softmax(q k^T / sqrt(head width)), in the model's own mode and dtype.

    They are computed beside the forward pass from what the layer reads, so that fused attention, which never holds
    them, stays as it is.

    Args:
        model: `AST`, a timm VisionTransformer or Eva: plain, adapted by any method, or merged.
        log_mel: what the model reads; for `AST` normalised log-mel [batch, frames, mel_bins].
        layer: index of the transformer block; negative ones count from the last.

    Returns:
        [batch, heads, tokens (queries), tokens (keys)], each row sums to 1. Prefix tokens come first, and after them
        the tokens of prompt tuning, if any.

    Raises:
        AttentionError: no such layer.
        ArgumentTypeError: attention of a kind that is not known.
    """
    check_module(model)
    backbone = backbone_of(model)
    blocks = backbone.blocks
    log_mel = as_tensor("log_mel", log_mel, next(model.parameters()), "what the model reads")
    if not isinstance(layer, int) or not -len(blocks) <= layer < len(blocks):
        raise AttentionError(
            f"layer {layer!r} does not exist, the model has {len(blocks)}; give 0 to {len(blocks) - 1}, -1 for the last"
        )
    block = blocks[layer]
    layout = block.layout if isinstance(block, OpenBlock) else backbone.layout(layer, block)
    attn = getattr(block, layout.attn)
    parts = attn if isinstance(attn, WidenedAttention) else attention_parts(attn)
    if parts is None or parts.shape.differential:
        raise ArgumentTypeError(
            f"attention maps are made of queries and keys by one softmax, layer {layer} has {type(attn).__name__}; "
            f"for transformers' AST, AST.from_transformers(model) is a copy that has it"
        )
    read: list[tuple[Tensor, Tensor | None]] = []

    def note_inputs(_: nn.Module, inputs: tuple[Tensor, ...], options: dict[str, Any]) -> None:
        read.append((inputs[0], options.get("rope")))

    hook = attn.register_forward_pre_hook(note_inputs, with_kwargs=True)
    try:
        model(log_mel)
    finally:
        hook.remove()
    q, k = _queries_and_keys(parts, *read[0])
    return (q * parts.shape.width**-0.5 @ k.transpose(2, 3)).softmax(3)


def token_attention(maps: Tensor, grid: TokenGrid, time_step: int) -> Tensor:
    """How much the tokens of one time step attend to each place of the grid: the mean over heads and frequency rows.

    The paper shows one map for a time step and does not say how it is made of the heads and rows; the mean is decided
    here. What goes to prefix tokens and prompts is left out, so a map sums to the share that stays on the patches.

    Args:
        maps: [batch, heads, tokens, tokens], from `attention_maps`.
        grid: of the model.
        time_step: 0 <= time_step < grid.time_steps.

    Returns:
        [batch, freq_bins, time_steps], low frequencies first.

    Raises:
        AttentionError: no such time step, or maps of fewer tokens than the grid has.
    """
    maps = as_tensor("maps", maps, torch.empty(0), "[batch, heads, tokens, tokens]")
    if not isinstance(time_step, int) or not 0 <= time_step < grid.time_steps:
        raise AttentionError(f"time step {time_step} does not exist; expected 0 to {grid.time_steps - 1}")
    if maps.dim() != 4 or maps.shape[2] != maps.shape[3] or maps.shape[3] < grid.tokens:
        raise AttentionError(
            f"expected maps [batch, heads, tokens, tokens] of at least {grid.tokens} tokens, got {list(maps.shape)}; "
            f"give the grid of the model that they come from"
        )
    patches = maps[:, :, -grid.patches :, -grid.patches :].mean(1)
    # [batch, rows and columns of queries, rows and columns of keys], as they lie in memory
    placed = patches.unflatten(2, grid.rows_cols).unflatten(1, grid.rows_cols)
    if grid.token_order == "time":
        placed = placed.permute(0, 2, 1, 4, 3)
    return placed[:, :, time_step].mean(1)


def without_adapters(model: AST) -> AST | None:
    """A copy of `model` as it was before adaptation, but for the head; None where nothing was put into its blocks.

    That is the case for a linear probe, full fine-tuning and merged models.
    """
    config = adapt_config(model)
    if not is_adapted(model) or (config is not None and config.attn is config.ffn is None):
        return None
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("backbone.blocks.")}
    state |= {f"backbone.blocks.{name}": value.detach() for name, value in frozen_weights(model).items()}
    with torch.random.fork_rng(devices=[]):  # what it draws is overwritten at once
        plain = AST.from_config(model.config())
    plain.load_state_dict(state)
    like = next(model.parameters())
    return plain.to(like.device, like.dtype).train(model.training)


def _queries_and_keys(attn: AttentionParts | WidenedAttention, x: Tensor, rope: Tensor | None) -> tuple[Tensor, Tensor]:
    """[batch, tokens, dim] -> two of [batch, heads, tokens, head width]."""
    columns = attn.qkv(x)[..., : sum(attn.shape.columns)]  # what follows are, in merged models, the adapter's columns
    q, k, _ = queries_keys_values(attn, columns, rope)
    return q, k.repeat_interleave(attn.shape.heads // attn.shape.kv_heads, dim=1)
