"""Prompts against the sequence written out."""

import math

import pytest
import torch
from torch import Tensor

from fastloaa import AST
from fastloaa.methods import build_method
from helpers.small import SMALL, small_ast

MODELS = {
    "cls + dist": {},
    "cls": {"backbone": "vit_tiny_patch16_224"},
    "mean of patches": {
        "backbone": "vit_tiny_patch16_224",
        "backbone_options": SMALL | {"class_token": False, "global_pool": "avg"},
    },
}


def written_out(plain: AST, prompts: list[Tensor], x: Tensor) -> Tensor:
    """Logits with prompts after the prefix tokens; one set of prompts for all blocks, or one for each (VPT)."""
    vit, prefix, count = plain.backbone, plain.grid.prefix_tokens, prompts[0].shape[1]
    tokens = vit._pos_embed(vit.patch_embed(x.transpose(1, 2).unsqueeze(1)))
    tokens = torch.cat((tokens[:, :prefix], prompts[0].expand(len(x), -1, -1), tokens[:, prefix:]), 1)
    for index, block in enumerate(vit.blocks):
        if index and len(prompts) > 1:
            later = prompts[index].expand(len(x), -1, -1)
            tokens = torch.cat((tokens[:, :prefix], later, tokens[:, prefix + count :]), 1)
        tokens = block(tokens)
    tokens = vit.norm(tokens)
    pooled = tokens[:, :prefix].mean(1) if prefix else tokens[:, count:].mean(1)
    return plain.head(vit.fc_norm(pooled))


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_logits_are_those_written_out(options: dict, deep: bool) -> None:
    torch.manual_seed(1)
    plain = small_ast(**options)
    torch.manual_seed(1)
    model = build_method("prompt", {"tokens": 5, "deep": deep}).apply(small_ast(**options))
    prompts = [parameter for name, parameter in model.named_parameters() if name.endswith(".prompt")]
    assert len(prompts) == (2 if deep else 1)
    for prompt in prompts:
        torch.nn.init.normal_(prompt)
    x = torch.randn(2, 64, 128)
    expected = written_out(plain, prompts, x)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    assert (expected - plain(x)).abs().max() > 1e-3


def test_starts_as_vpt_does() -> None:
    model = build_method("prompt", {"tokens": 400}).apply(small_ast())
    prompt = model.backbone.blocks[0].prompt
    bound = math.sqrt(6 / (16 * 16 + 48))
    assert 0.99 * bound < prompt.abs().max() <= bound
    assert abs(prompt.std() - bound / math.sqrt(3)) < 0.01 * bound
