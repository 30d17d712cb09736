"""AAT against its block written out."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastloaa.methods import build_method
from helpers.small import small_ast


def bottleneck(adapter: nn.Module, x: Tensor) -> Tensor:
    return F.gelu(x @ adapter.down.weight.T + adapter.down.bias) @ adapter.up.weight.T + adapter.up.bias


def test_a_block_does_what_is_written_out() -> None:
    model = small_ast()
    plain = copy.deepcopy(model.backbone.blocks[1]).double()
    build_method("aat", {"bottleneck": 6}).apply(model)
    block = model.backbone.blocks[1].double()
    for adapter in (block.spatial_adapter, block.mlp_adapter):
        for parameter in adapter.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 34, 48, dtype=torch.float64)
    attended = plain.attn(plain.norm1(x))
    middle = x + attended + bottleneck(block.spatial_adapter, attended)
    normed = plain.norm2(middle)
    torch.testing.assert_close(block(x), middle + plain.mlp(normed) + bottleneck(block.mlp_adapter, normed))
