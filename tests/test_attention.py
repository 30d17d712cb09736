"""Attention maps: they are the weights that the model itself mixes its values with."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fastloaa import AST, TokenGrid, adapt
from fastloaa.attention import AttentionError, attention_maps, token_attention, without_adapters
from fastloaa.export import merge
from fastloaa.methods import build_method
from helpers.small import small_ast, small_vit, wake_adapters

METHODS = {
    "loaa": {"bottleneck": 4},
    "parallel": {"bottleneck": 4},
    "convpass": {"bottleneck": 4},
    "aat": {"bottleneck": 4},
    "lora": {"rank": 2},
    "prompt": {"tokens": 3},
}


def adapted(name: str) -> AST:
    """A model with everything that a method trains away from where it starts, in evaluation mode."""
    model = build_method(name, METHODS[name]).apply(small_ast()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def blocks_of(model: nn.Module) -> nn.Sequential:
    return model.backbone.blocks if isinstance(model, AST) else model.blocks  # type: ignore[union-attr,return-value]


def read_and_written(model: nn.Module, x: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    """What the attention of a layer takes and gives."""
    seen: list[tuple[Tensor, Tensor]] = []
    hook = blocks_of(model)[layer].attn.register_forward_hook(  # type: ignore[union-attr,operator]
        lambda _, inputs, output: seen.append((inputs[0], output))
    )
    model(x)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("layer", [0, 1, -1])
@pytest.mark.parametrize(
    "make",
    [
        small_ast,
        lambda: small_vit(qk_norm=True),
        lambda: adapted("loaa"),
        lambda: adapted("lora"),
        lambda: adapted("prompt"),
    ],
    ids=["ast", "vit with qk_norm", "loaa", "lora", "prompt"],
)
@torch.no_grad()
def test_mixing_the_values_with_them_gives_what_the_layer_gives(make: Callable[[], nn.Module], layer: int) -> None:
    model = make().double()
    for name, parameter in model.named_parameters():
        if "_norm" in name or "qkv" in name:  # away from ones, and attention away from an even share
            parameter.add_(torch.randn_like(parameter) * 0.3)
    x = torch.randn(2, 64, 128).double() if isinstance(model, AST) else torch.randn(2, 1, 64, 128).double()
    maps = attention_maps(model, x, layer)
    normed, written = read_and_written(model, x, layer)
    batch, tokens, dim = normed.shape
    assert maps.shape == (2, 3, tokens, tokens)
    assert maps.var(3).max() > 1e-5, "an even share would hide most mistakes"
    attn = blocks_of(model)[layer].attn
    assert isinstance(attn, nn.Module)
    values = attn.qkv(normed)[..., 2 * dim :].reshape(batch, tokens, 3, dim // 3)  # type: ignore[operator]
    mixed = torch.einsum("bhqk,bkhd->bqhd", maps, values).flatten(2)
    torch.testing.assert_close(attn.proj(mixed), written, rtol=1e-10, atol=1e-10)  # type: ignore[operator]


@torch.no_grad()
def test_merging_leaves_them_as_they_are() -> None:
    model = adapt(small_ast(), attn="time", ffn="freq", bottleneck=4)
    wake_adapters(model)
    log_mel = torch.randn(2, 64, 128)
    for layer in (0, 1):
        torch.testing.assert_close(
            attention_maps(merge(model), log_mel, layer), attention_maps(model, log_mel, layer), rtol=1e-4, atol=1e-6
        )


def test_nothing_is_left_in_the_model() -> None:
    model = small_ast()
    attention_maps(model, torch.randn(1, 64, 128))
    assert not any(module._forward_pre_hooks for module in model.modules())
    with pytest.raises(ValueError, match="expected log-mel"):
        attention_maps(model, torch.randn(1, 64, 64))
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("prompts", [0, 3])
@pytest.mark.parametrize("order", ["freq", "time"])
def test_token_attention_by_hand(order: str, prompts: int) -> None:
    grid = TokenGrid(2, 3, prefix_tokens=1, token_order=order)  # type: ignore[arg-type]
    tokens = grid.tokens + prompts
    maps = torch.rand(2, 4, tokens, tokens, dtype=torch.float64)

    def token(f: int, t: int) -> int:
        return 1 + prompts + (f * 3 + t if order == "freq" else t * 2 + f)

    for step in range(3):
        found = token_attention(maps, grid, step)
        assert found.shape == (2, 2, 3)
        for clip in range(2):
            for f in range(2):
                for t in range(3):
                    weights = [
                        maps[clip, h, token(row, step), token(f, t)].item() for h in range(4) for row in range(2)
                    ]
                    assert found[clip, f, t].item() == pytest.approx(sum(weights) / 8, rel=1e-12)


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_without_adapters_is_the_model_before_adaptation(method: str) -> None:
    torch.manual_seed(3)
    before = small_ast()
    torch.manual_seed(3)
    model = adapted(method)  # the same backbone
    random_state = torch.get_rng_state()
    plain = without_adapters(model)
    assert plain is not None
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not plain.training
    for name, value in before.backbone.state_dict().items():
        assert torch.equal(plain.backbone.state_dict()[name], value), name
    assert plain.backbone.state_dict().keys() == before.backbone.state_dict().keys()
    log_mel = torch.randn(1, 64, 128)
    maps = attention_maps(plain, log_mel)
    assert torch.equal(maps, attention_maps(before, log_mel))
    patches = before.grid.patches
    assert (attention_maps(model, log_mel)[..., -patches:, -patches:] - maps[..., 2:, 2:]).abs().max() > 1e-4
    shared = {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in plain.parameters()}
    assert not shared


def test_without_adapters_keeps_the_dtype() -> None:
    plain = without_adapters(adapted("loaa").double())
    assert plain is not None
    assert {p.dtype for p in plain.parameters()} == {torch.float64}


def test_where_there_is_nothing_to_take_out() -> None:
    assert without_adapters(small_ast()) is None
    assert without_adapters(build_method("full").apply(small_ast())) is None
    assert without_adapters(build_method("probe").apply(small_ast())) is None
    assert without_adapters(merge(adapt(small_ast(), bottleneck=4))) is None


@pytest.mark.parametrize("layer", [2, -3])
def test_no_such_layer(layer: int) -> None:
    with pytest.raises(AttentionError, match=rf"^layer {layer} does not exist, the model has 2; give 0 to 1, -1"):
        attention_maps(small_ast(), torch.randn(1, 64, 128), layer)


def test_other_attention_is_refused() -> None:
    from transformers import ASTConfig, ASTForAudioClassification

    config = ASTConfig(hidden_size=48, num_hidden_layers=1, num_attention_heads=3, intermediate_size=96, max_length=64)
    with pytest.raises(TypeError, match=r"AST\.from_transformers"):
        attention_maps(ASTForAudioClassification(config), torch.randn(1, 64, 128))


def test_maps_that_do_not_fit() -> None:
    grid = TokenGrid(2, 3, prefix_tokens=1)
    with pytest.raises(AttentionError, match="time step 3 does not exist; expected 0 to 2"):
        token_attention(torch.rand(1, 1, 7, 7), grid, 3)
    with pytest.raises(AttentionError, match="time step -1 does not exist"):
        token_attention(torch.rand(1, 1, 7, 7), grid, -1)
    for shape in ((1, 7, 7), (1, 1, 6, 6), (1, 1, 7, 8)):
        with pytest.raises(AttentionError, match="of at least 7 tokens"):
            token_attention(torch.rand(shape), grid, 0)
