"""Merged models on disk."""

from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from fastloaa.adapt import is_audio_transformer, token_grid, vision_transformer
from fastloaa.export.merge import MergeError, linear_of, merged_from
from fastloaa.files import FileError, read_safetensors, understanding, write_safetensors
from fastloaa.follow import follow_grid
from fastloaa.models import AST
from fastloaa.widened import Between, WidenedAttention, WidenedMlp


def save_merged(model: nn.Module, path: str | Path) -> None:
    """Write what `merge` returned as safetensors, with all that `load_merged` needs to build it again.

    Raises:
        MergeError: a model that `merge` did not return.
    """
    origin = merged_from(model)
    if origin is None:
        raise MergeError("the model is not a merged one; save what merge(model) returns")
    blocks = vision_transformer(model).blocks
    metadata = {
        "kind": "merged",
        "merged_from": origin,
        "model": model.config() if is_audio_transformer(model) else None,
        "blocks": [{"attn": _between(block.attn), "ffn": _between(block.mlp)} for block in blocks],
    }
    write_safetensors(path, model.state_dict(), metadata)


def load_merged(path: str | Path, model: nn.Module | None = None) -> nn.Module:
    """The model that `save_merged` wrote, in evaluation mode.

    Args:
        model: for timm models, which the file cannot build: a plain one of the same architecture. It is changed in
            place and returned. Not needed for `AST`.

    Raises:
        FileError: missing, damaged, or not a file of `save_merged`.
        MergeError: the model is missing, or not of that architecture.
    """
    state, metadata = read_safetensors(path)
    if metadata.get("kind") != "merged":
        raise FileError(f"{path}: not a merged model; expected a file that save_merged or `fastloaa merge` wrote")
    with understanding(path, "a merged model"):
        origin, sites_of_blocks, config = metadata["merged_from"], list(metadata["blocks"]), metadata.get("model")
    if model is None:
        if config is None:
            raise MergeError(
                f"{path}: holds a timm model; pass a plain one of its architecture: load_merged(path, model)"
            )
        with understanding(path, "a merged model"):
            model = AST.from_config(config)
    vit = vision_transformer(model)
    prefix = "backbone." if is_audio_transformer(model) else ""
    try:
        for index, (block, sites) in enumerate(zip(vit.blocks, sites_of_blocks, strict=True)):
            _widen_like(block, sites, {k.removeprefix(f"{prefix}blocks.{index}."): v for k, v in state.items()})
        model.load_state_dict(state)
        follow_grid(model, vit.blocks, token_grid)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise MergeError(
            f"{path}: does not fit the model ({reason}); build the architecture that was merged"
        ) from error
    model.__dict__["loaa_merged_from"] = origin
    return model.requires_grad_(False).eval()


def _between(module: nn.Module) -> dict[str, Any] | None:
    """A site as JSON; None for a plain module, whose shapes say it all."""
    return module.between.to_json() if isinstance(module, WidenedAttention | WidenedMlp) else None


def _widen_like(block: Block, sites: dict[str, Any], state: dict[str, Tensor]) -> None:
    """Give a plain block the modules of a merged one; its state dict is loaded afterwards."""

    def empty(name: str) -> nn.Linear:
        return linear_of(torch.empty_like(state[f"{name}.weight"]), _like(state.get(f"{name}.bias")))

    for site, widened in sites.items():
        between = widened and Between.from_json(widened)
        if site == "attn" and between:
            block.attn = WidenedAttention(block.attn, empty("attn.qkv"), empty("attn.proj"), between)
        elif site == "ffn" and between:
            block.mlp = WidenedMlp(empty("mlp.fc1"), block.mlp.act, empty("mlp.fc2"), between)
        elif site == "ffn":
            block.mlp.fc1, block.mlp.fc2 = empty("mlp.fc1"), empty("mlp.fc2")
    for name in ("ls1", "ls2"):
        if f"{name}.gamma" not in state:
            setattr(block, name, nn.Identity())


def _like(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else torch.empty_like(tensor)
