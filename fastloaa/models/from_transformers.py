"""Weights of Hugging Face transformers' AST, renamed for our own."""

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fastloaa.adapters.adapting import adapt, present_config
from fastloaa.adapters.loaa import LoAA
from fastloaa.backbones import backbone_of
from fastloaa.backbones.transformers_ast import is_transformers_ast
from fastloaa.errors import ArgumentError, ArgumentTypeError

if TYPE_CHECKING:  # transformers is optional, and imported by whoever made such a model
    from transformers import ASTFeatureExtractor, ASTForAudioClassification

# Linears and LayerNorms of a layer, by our names and by theirs, now and before transformers 5.9; q, k and v become one.
_LAYER = {
    "norm1": ("layernorm_before", "layernorm_before"),
    "attn.proj": ("attention.o_proj", "attention.output.dense"),
    "norm2": ("layernorm_after", "layernorm_after"),
    "mlp.fc1": ("mlp.fc1", "intermediate.dense"),
    "mlp.fc2": ("mlp.fc2", "output.dense"),
}
_QKV = tuple((f"attention.{name[0]}_proj", f"attention.attention.{name}") for name in ("query", "key", "value"))


def ast_config(
    model: "ASTForAudioClassification", feature_extractor: "ASTFeatureExtractor | None" = None
) -> dict[str, Any]:
    """Arguments for `AST` that give the architecture of `model` and the front end of `feature_extractor`.

    Dropout is left out: it plays no part in the logits, and adapters train with a frozen backbone.

    Raises:
        ArgumentTypeError: another model than `ASTForAudioClassification`.
        ArgumentError: one whose activation AST does not have, or that has no classes.
    """
    if not is_transformers_ast(model):
        raise ArgumentTypeError(f"expected transformers' ASTForAudioClassification, got {type(model).__name__}")
    config = model.config
    if config.hidden_act != "gelu":
        raise ArgumentError(
            f"AST has the exact GELU, the model has {config.hidden_act!r}; adapt(model) takes it as it is"
        )
    if model.num_labels < 1:
        raise ArgumentError("the model has no classes; build it with num_labels=N")
    labels = [str(config.id2label[index]) for index in range(model.num_labels)]
    unnamed = labels == [f"LABEL_{index}" for index in range(model.num_labels)]
    multi_label = config.problem_type == "multi_label_classification"
    front_end: dict[str, Any] = {}
    if feature_extractor is not None:
        normalises = feature_extractor.do_normalize
        front_end["sample_rate"] = feature_extractor.sampling_rate
        front_end["mean"] = feature_extractor.mean if normalises else 0.0
        front_end["std"] = feature_extractor.std if normalises else 0.5  # ours divides by 2 * std, as theirs does
    return front_end | {
        "num_classes": model.num_labels,
        "labels": None if unnamed else labels,
        "probabilities": "sigmoid" if multi_label else "softmax",
        "multi_label": multi_label,
        "frames": config.max_length,
        "mel_bins": config.num_mel_bins,
        "patch": config.patch_size,
        "stride": (config.frequency_stride, config.time_stride),
        "backbone": "deit_base_distilled_patch16_384",
        "backbone_options": {
            "embed_dim": config.hidden_size,
            "depth": config.num_hidden_layers,
            "num_heads": config.num_attention_heads,
            "mlp_ratio": _ratio(config.intermediate_size, config.hidden_size),
            "qkv_bias": config.qkv_bias,
        },
        "norm_eps": config.layer_norm_eps,
    }


def _ratio(hidden: int, dim: int) -> float:
    """Of which timm makes `hidden` again, rounding dim * ratio down."""
    ratio = hidden / dim
    return ratio if int(dim * ratio) == hidden else math.nextafter(ratio, math.inf)


def ast_state(model: "ASTForAudioClassification") -> dict[str, Tensor]:
    """State dict for `AST`: the same tensors under its names."""
    body, classifier = model.audio_spectrogram_transformer, model.classifier
    embeddings = body.embeddings
    state = {
        "backbone.cls_token": embeddings.cls_token,
        "backbone.dist_token": embeddings.distillation_token,
        "backbone.pos_embed": embeddings.position_embeddings,
    }
    modules: dict[str, nn.Module] = {
        "backbone.patch_embed.proj": embeddings.patch_embeddings.projection,
        "backbone.norm": body.layernorm,
        "head.0": classifier.layernorm,
        "head.1": classifier.dense,
    }
    for index, layer in enumerate(backbone_of(model).blocks):
        version = 0 if hasattr(layer, "mlp") else 1
        for ours, theirs in _LAYER.items():
            modules[f"backbone.blocks.{index}.{ours}"] = layer.get_submodule(theirs[version])
        parts = [layer.get_submodule(names[version]).state_dict() for names in _QKV]
        for key in parts[0]:  # weight, and bias where there is one
            state[f"backbone.blocks.{index}.attn.qkv.{key}"] = torch.cat([part[key] for part in parts])
    return state | {f"{name}.{key}": t for name, module in modules.items() for key, t in module.state_dict().items()}


def copy_adapters(model: nn.Module, ast: nn.Module) -> None:
    """Adapt `ast` as `model` has been, with the same weights; nothing if it has not."""
    config = present_config(model)
    if config is None:
        return
    adapt(ast, **asdict(config))
    adapters = [module for module in backbone_of(model).blocks.modules() if isinstance(module, LoAA)]
    copies = [module for module in backbone_of(ast).blocks.modules() if isinstance(module, LoAA)]
    for adapter, copy in zip(adapters, copies, strict=True):
        copy.load_state_dict(adapter.state_dict())
        copy.initialisation = adapter.initialisation
