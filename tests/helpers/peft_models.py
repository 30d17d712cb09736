"""A small model of each family that adapters go into, and what it reads; for the tests of `fastloaa.peft`."""

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from helpers.small import SMALL, small_ast, small_vit


def transformers_ast(num_classes: int = 5) -> nn.Module:
    config = transformers.ASTConfig(
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=96,
        max_length=64,
        num_mel_bins=48,
        frequency_stride=16,
        time_stride=16,
        num_labels=num_classes,
    )
    return transformers.ASTForAudioClassification(config).eval()


FAMILIES: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "AST": (small_ast, (64, 128)),
    "timm ViT": (small_vit, (1, 64, 128)),
    "timm Eva": (lambda: small_vit("vit_small_patch16_dinov3", **SMALL), (1, 64, 128)),
    "transformers": (transformers_ast, (64, 48)),
}


def logits(model: nn.Module, x: Tensor) -> Tensor:
    out = model(x)
    return out if isinstance(out, Tensor) else out.logits


def family(name: str) -> tuple[Any, Tensor]:
    """A model in float64 whose weights are far from their small beginnings, and a batch of two."""
    make, shape = FAMILIES[name]
    model = make().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model, torch.randn(2, *shape, dtype=torch.float64)


def woken(model: nn.Module, seed: int = 7) -> nn.Module:
    """All that trains, changed as by training, in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.2
                parameter.add_(noise.to(parameter.dtype))
    return model
