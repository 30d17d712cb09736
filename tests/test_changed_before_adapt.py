"""Models whose parts were changed or hung with hooks before `adapt`, `norm_once` or `merge` took them apart."""

import types
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fastloaa import LoAA, adapt, norm_once
from fastloaa.backbones import backbone_of
from fastloaa.export import MergeError, merge
from fastloaa.methods import build_method
from helpers.small import small_ast, small_vit, wake_adapters

IMAGES = torch.randn(2, 1, 64, 128, generator=torch.Generator().manual_seed(0))


def test_adapters_run_in_blocks_that_were_compiled_before() -> None:
    model = small_vit()
    plain = model(IMAGES)
    for block in model.blocks:
        block.compile(backend="eager")
    wake_adapters(adapt(model, bottleneck=4))
    assert (model(IMAGES) - plain).abs().max() > 1e-3


@pytest.mark.parametrize("method", ["loaa", "convpass"])
def test_a_block_with_a_forward_of_its_own_is_refused(method: str) -> None:
    model = small_ast()
    block = model.backbone.blocks[1]
    block.forward = types.MethodType(type(block).forward, block)
    before = list(model.state_dict())
    with pytest.raises(TypeError, match=r"forward of its own .* Block"):
        build_method(method, {"bottleneck": 4}).apply(model)
    assert list(model.state_dict()) == before
    del block.forward
    adapt(model, bottleneck=4)


def test_hooks_of_blocks_stay_and_can_be_removed() -> None:
    model = small_vit()
    seen: list[str] = []
    handles = [
        model.blocks[0].register_forward_pre_hook(lambda *_: seen.append("before")),
        model.blocks[0].register_forward_hook(lambda *_, **__: seen.append("after"), with_kwargs=True),
        model.blocks[0].register_full_backward_hook(lambda *_: seen.append("gradient")),
    ]
    adapt(model, bottleneck=4)(IMAGES).sum().backward()
    assert seen == ["before", "after", "gradient"]
    merge(model)(IMAGES)
    assert seen == ["before", "after", "gradient", "before", "after"]
    for handle in handles:
        handle.remove()
    model(IMAGES)
    assert len(seen) == 5


class Tripled(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return 3 * super().forward(x)


def hung(norm: nn.LayerNorm) -> nn.LayerNorm:
    norm.register_forward_hook(lambda _, inputs, out: 3 * out)
    return norm


def replaced(norm: nn.LayerNorm) -> nn.LayerNorm:
    norm.forward = lambda x: 3 * nn.LayerNorm.forward(norm, x)
    return norm


NORMS: dict[str, Callable[[], nn.LayerNorm]] = {
    "a subclass": lambda: Tripled(16),
    "a hook": lambda: hung(nn.LayerNorm(16)),
    "a forward of its own": lambda: replaced(nn.LayerNorm(16)),
}


@pytest.mark.parametrize("name", NORMS)
def test_a_norm_that_computes_something_else_is_not_recomputed(name: str) -> None:
    norm, layer, x = NORMS[name](), LoAA(16, 4, freq_bins=2), torch.randn(1, 8, 16)
    nn.init.normal_(layer.up.weight)
    normed, source = norm_once(norm, x)
    expected, actual = (
        torch.autograd.grad(out.square().sum(), layer.down.weight)[0]
        for out in (layer(norm(x)), layer(normed, normed_from=source))
    )
    torch.testing.assert_close(actual, expected)


class Gated(LoAA):
    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        return super().forward(x, *others) / 2


class Wrapped(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, out: Tensor, skip: Tensor, *_: object) -> Tensor:
        return skip + out + self.inner(x) / 2


def twice(module: nn.Module) -> None:
    plain = module.forward
    module.forward = lambda *args, **options: 2 * plain(*args, **options)


def hook_twice(module: nn.Module) -> None:
    module.register_forward_hook(lambda _, inputs, out: 2 * out)


CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "another branch": lambda block: setattr(block, "loaa_attn", Wrapped(block.loaa_attn)),
    "a subclass of LoAA": lambda block: setattr(block.loaa_ffn, "__class__", Gated),
    "hooks on an adapter": lambda block: hook_twice(block.loaa_ffn),
    "attention with another forward": lambda block: twice(block.attn),
    "hooks on attention": lambda block: hook_twice(block.attn),
    "hooks on a Linear of attention": lambda block: hook_twice(block.attn.qkv),
    "a Linear with another forward": lambda block: twice(block.mlp.fc2),
    "an FFN with another forward": lambda block: twice(block.mlp),
    "hooks on an FFN": lambda block: hook_twice(block.mlp),
}


@pytest.mark.parametrize("name", CHANGES)
def test_merging_refuses_what_it_would_lose(name: str) -> None:
    model = adapt(small_vit(), bottleneck=4)
    CHANGES[name](backbone_of(model).blocks[1])
    with pytest.raises(MergeError, match="block 1 "):
        merge(model)


def test_hooks_on_an_ffns_activation_go_on_running_in_a_merged_model() -> None:
    model = adapt(small_vit(), bottleneck=4)
    wake_adapters(model)
    hook_twice(model.blocks[1].mlp.act)
    with torch.no_grad():
        torch.testing.assert_close(merge(model)(IMAGES), model(IMAGES))
