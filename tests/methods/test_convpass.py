"""Convpass against the block and the bypass written out."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from fastloaa.methods import build_method
from fastloaa.methods.convpass import Convpass
from helpers.small import small_ast


def written_out(branch: Convpass, x: Tensor, grid: tuple[int, int], prefix: int) -> Tensor:
    """Each prefix token as an image of its own, the patches as one (Jie and Deng, section 3.2)."""
    down, conv, up = branch.down, branch.conv, branch.up
    hidden = x @ down.weight.T + down.bias
    hidden = hidden * torch.sigmoid(1.702 * hidden)
    images = [hidden[:, i].reshape(len(x), -1, 1, 1) for i in range(prefix)]
    images.append(hidden[:, prefix:].transpose(1, 2).reshape(len(x), -1, *grid))
    rows = [F.conv2d(image, conv.weight, conv.bias, padding=1).flatten(2).transpose(1, 2) for image in images]
    mixed = torch.cat(rows, 1)
    return (mixed * torch.sigmoid(1.702 * mixed)) @ up.weight.T + up.bias


def test_a_block_does_what_is_written_out() -> None:
    model = small_ast()
    plain = copy.deepcopy(model.backbone.blocks[0]).double()
    build_method("convpass", {"bottleneck": 4, "scale": 0.3}).apply(model)
    block = model.backbone.blocks[0].double()
    for branch in (block.convpass_attn, block.convpass_ffn):
        for parameter in branch.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 2 + 8 * 4, 48, dtype=torch.float64)
    normed = plain.norm1(x)
    middle = x + plain.attn(normed) + 0.3 * written_out(block.convpass_attn, normed, (8, 4), 2)
    normed = plain.norm2(middle)
    expected = middle + plain.mlp(normed) + 0.3 * written_out(block.convpass_ffn, normed, (8, 4), 2)
    torch.testing.assert_close(block(x), expected)


def test_the_convolution_starts_as_the_identity() -> None:
    model = build_method("convpass", {"bottleneck": 4}).apply(small_ast())
    conv = model.backbone.blocks[1].convpass_ffn.conv
    image = torch.randn(1, 4, 8, 4)
    torch.testing.assert_close(conv(image), image)


def test_dropout_only_in_training() -> None:
    model = build_method("convpass", {"dropout": 0.9}).apply(small_ast())
    branch = model.backbone.blocks[0].convpass_attn
    torch.nn.init.normal_(branch.up.weight)
    x = torch.randn(1, 34, 48)
    assert torch.equal(branch(x), branch(x))
    branch.train()
    assert not torch.equal(branch(x), branch(x))
