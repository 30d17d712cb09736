"""LoRA against weights with the update added in."""

import copy

import torch

from fastloaa import AST
from fastloaa.methods import build_method
from helpers.small import small_ast

PATHS = {"qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}


def with_update_added(plain: AST, adapted: AST, targets: list[str], factor: float) -> AST:
    merged = copy.deepcopy(plain)
    with torch.no_grad():
        for index, block in enumerate(merged.backbone.blocks):
            for target in targets:
                lora = adapted.backbone.blocks[index].get_submodule(PATHS[target])
                update = lora.lora_B["default"].weight @ lora.lora_A["default"].weight
                block.get_submodule(PATHS[target]).weight += factor * update
    return merged


def check(options: dict, targets: list[str], factor: float) -> None:
    plain = small_ast()
    adapted = build_method("lora", options).apply(copy.deepcopy(plain))
    trained = [name for name, parameter in adapted.backbone.named_parameters() if parameter.requires_grad]
    assert len(trained) == 2 * 2 * len(targets)  # two matrices a target, two blocks; the patch embedding has none
    for name in trained:
        torch.nn.init.normal_(adapted.backbone.get_parameter(name), std=0.2)
    x = torch.randn(2, 64, 128)
    torch.testing.assert_close(adapted(x), with_update_added(plain, adapted, targets, factor)(x), rtol=1e-4, atol=1e-5)
    assert (adapted(x) - plain(x)).abs().max() > 1e-2


def test_the_default_is_attention_with_factor_one() -> None:
    check({"rank": 3}, ["qkv", "proj"], 1.0)


def test_alpha_and_targets() -> None:
    check({"rank": 4, "alpha": 6, "targets": ["fc2", "qkv"]}, ["fc2", "qkv"], 1.5)
