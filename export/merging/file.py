"""Merged models on disk."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastloaa.adapters.follow import follow_grid
from fastloaa.adapters.record import note
from fastloaa.adapters.widened import Between, WidenedAttention, WidenedMlp
from fastloaa.backbones import BlockLayout, backbone_of
from fastloaa.backbones.parts import attention_parts, ffn_parts, linear_of
from fastloaa.export.merging.merge import MergeError, merged_from, take_scale
from fastloaa.files import FileError, read_safetensors, understanding, write_safetensors
from fastloaa.models import AST
from fastloaa.models.architecture import check_architecture


def save_merged(model: nn.Module, path: str | Path) -> None:
    """Write what `merge` returned as safetensors, with all that `load_merged` needs to build it again.

    Raises:
        MergeError: a model that `merge` did not return.

    Examples:
        >>> from fastloaa import AST, adapt
        >>> from fastloaa.export import load_merged, merge, save_merged
        >>> model = AST(5, frames=64, backbone_options={"depth": 1, "embed_dim": 48, "num_heads": 3})
        >>> model = adapt(model, bottleneck=4)
        >>> save_merged(merge(model), "merged.safetensors")
        >>> type(load_merged("merged.safetensors")).__name__
        'AST'
    """
    origin = merged_from(model)
    if origin is None:
        raise MergeError("the model is not a merged one; save what merge(model) returns")
    backbone = backbone_of(model)
    metadata = {
        "kind": "merged",
        "merged_from": origin,
        "model": backbone.config(),
        "blocks": [_sites(block, backbone.layout(index, block)) for index, block in enumerate(backbone.blocks)],
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
            check_architecture(path, config)
            model = AST.from_config(config)
    backbone = backbone_of(model)
    names = {id(module): name for name, module in model.named_modules()}
    try:
        for index, (block, sites) in enumerate(zip(backbone.blocks, sites_of_blocks, strict=True)):
            prefix = f"{names[id(block)]}."
            own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
            _widen_like(block, backbone.layout(index, block), sites, own)
        model.load_state_dict(state)
        follow_grid(backbone)
        backbone.adapted()
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise MergeError(
            f"{path}: does not fit the model ({reason}); build the architecture that was merged"
        ) from error
    note(model, merged_from=origin)
    return model.requires_grad_(False).eval()


def _sites(block: nn.Module, layout: BlockLayout) -> dict[str, Any]:
    """The sites of a block as JSON; None for a plain module, whose shapes say it all."""
    sites = {"attn": getattr(block, layout.attn), "ffn": getattr(block, layout.mlp)}
    return {
        site: module.between.to_json() if isinstance(module, WidenedAttention | WidenedMlp) else None
        for site, module in sites.items()
    }


def _widen_like(block: nn.Module, layout: BlockLayout, sites: dict[str, Any], state: dict[str, Tensor]) -> None:
    """Give a plain block the modules of a merged one; its state dict is loaded afterwards."""

    def empty(name: str) -> nn.Linear:
        return linear_of(torch.empty_like(state[f"{name}.weight"]), _like(state.get(f"{name}.bias")))

    for site, widened in sites.items():
        between, name = widened and Between.from_json(widened), layout.attn if site == "attn" else layout.mlp
        if between and site == "attn":
            attn = attention_parts(getattr(block, name))
            if attn is not None and attn.is_linear:
                setattr(block, name, WidenedAttention(attn, empty(f"{name}.qkv"), empty(f"{name}.proj"), between))
        elif between:
            ffn = ffn_parts(getattr(block, name))
            if ffn is not None and ffn.is_linear:
                setattr(block, name, WidenedMlp(ffn, empty(f"{name}.fc1"), empty(f"{name}.fc2"), between))
        elif site == "ffn":
            mlp = getattr(block, name)
            for linear in ("fc1", "fc2"):
                if isinstance(getattr(mlp, linear, None), nn.Linear):  # merged by widening alone, or not at all
                    setattr(mlp, linear, empty(f"{name}.{linear}"))
    for scale in (layout.scale1, layout.scale2):
        if scale is not None and not any(key.partition(".")[0] == scale for key in state):
            take_scale(block, scale)


def _like(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else torch.empty_like(tensor)
