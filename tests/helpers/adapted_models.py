"""Small adapted models of every library, and inputs for them."""

import pytest
import torch
from torch import Tensor, nn

from fastloaa import adapt
from helpers.small import small_ast, small_vit, wake_adapters


class Logits(nn.Module):
    """Transformers' AST with a tensor for an answer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).logits


def hugging_face() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.ASTConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96, num_labels=5,
        max_length=64, num_mel_bins=128, frequency_stride=16, time_stride=16,
    )  # fmt: skip
    return transformers.ASTForAudioClassification(config).eval()


def _adapted(model: nn.Module, backend: str) -> nn.Module:
    adapt(model, bottleneck=4, bias=True, scale=0.5, backend=backend)  # type: ignore[arg-type]
    wake_adapters(model)
    return model


def build(name: str, backend: str = "auto") -> tuple[nn.Module, Tensor]:
    """An adapted model, and two inputs for it."""
    torch.manual_seed(0)
    x = torch.randn(2, 64, 128)
    if name == "AST":
        return _adapted(small_ast(), backend), x
    if name == "timm ViT":
        return _adapted(small_vit(), backend), x.unsqueeze(1)
    return Logits(_adapted(hugging_face(), backend)), x


NAMES = ["AST", "timm ViT", "transformers"]
each_model = pytest.mark.parametrize("name", NAMES)
