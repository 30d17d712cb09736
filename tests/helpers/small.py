"""Small models that tests share; logic does not depend on width."""

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from fastloaa import AST, LoAA

SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 3}


def small_ast(num_classes: int = 5, frames: int = 64, **options: object) -> AST:
    """AST 48 wide and two blocks deep with cls and dist tokens on an 8 x 4 grid (frames=64)."""
    defaults = {"backbone": "deit_tiny_distilled_patch16_224", "backbone_options": SMALL}
    return AST(num_classes, frames=frames, **(defaults | options)).eval()  # type: ignore[arg-type]


def small_vit(name: str = "vit_tiny_patch16_224", **options: object) -> VisionTransformer:
    """A timm ViT of the same size on a 4 x 8 grid of a one-channel image."""
    arguments = {"img_size": (64, 128), "in_chans": 1, "num_classes": 5} | SMALL | options
    return timm.create_model(name, **arguments).eval()


def wake_adapters(model: nn.Module) -> None:
    """Give the adapters' up-projections weights, so that the branches are not zero."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, LoAA):
                module.up.weight.copy_(torch.randn(module.up.weight.shape, generator=generator) * 0.2)
