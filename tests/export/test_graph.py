"""Inference: the forms that are exported compute what the model computes, and no more than is read."""

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import GluMlp, SwiGLU
from torch import Tensor, nn

from fastloaa import AST, LoAA, adapt
from fastloaa.adapters.widened import Between
from fastloaa.export import merge
from fastloaa.export.graph import Inference
from fastloaa.export.graph_blocks import GraphBetween, ReadOutBlock
from helpers.small import SMALL, small_ast, small_vit, wake_adapters

VITS = {
    "cls": lambda: small_vit("vit_tiny_patch16_224"),
    "cls and dist": lambda: small_vit("deit_tiny_distilled_patch16_224"),
    "registers, LayerScale, norms of q and k": lambda: small_vit(
        "vit_tiny_patch16_224", reg_tokens=3, init_values=0.5, qk_norm=True
    ),
    "mean of the patches": lambda: small_vit("vit_tiny_patch16_224", global_pool="avg"),
    "SwiGLU": lambda: small_vit(mlp_layer=SwiGLU, reg_tokens=2, init_values=0.5),
    "norms in attention and in a GLU": lambda: small_vit(mlp_layer=GluMlp, scale_mlp_norm=True, scale_attn_norm=True),
    "differential": lambda: small_vit(attn_layer="diff"),
    "no qkv bias": lambda: small_vit("vit_tiny_patch16_224", qkv_bias=False),
}


def wake(model: nn.Module) -> None:
    """Nothing in it stays zero or one, where a mistake could hide."""
    wake_adapters(model)
    for module in model.modules():
        if isinstance(module, LoAA) and module.down.bias is not None:
            nn.init.normal_(module.down.bias)
            nn.init.normal_(module.up.bias)


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("make", VITS.values(), ids=VITS)
@pytest.mark.parametrize(
    "options",
    [
        {"attn": "time", "ffn": "freq"},
        {"attn": (3, 3), "ffn": "linear", "bias": True, "scale": 0.5, "activation": "silu"},
        {"attn": None, "ffn": "time"},
        {"attn": "linear", "ffn": None, "bias": True},
    ],
    ids=str,
)
@torch.no_grad()
def test_every_form_of_a_timm_model(make: object, options: dict) -> None:
    model = adapt(make(), bottleneck=5, **options)  # type: ignore[operator]
    wake(model)
    image = torch.randn(3, 1, 64, 128)
    expected = model(image)
    close(Inference(model)(image)[0], expected)
    close(Inference(model, adapters="conv2d")(image)[0], expected)
    close(Inference(merge(model))(image)[0], expected)
    close(Inference(merge(model), opset=23)(image)[0], expected)


@pytest.mark.parametrize("make", VITS.values(), ids=VITS)
@torch.no_grad()
def test_models_without_adapters(make: object) -> None:
    """With attention as an operator, and in older ones; with what the head reads."""
    model, image = make(), torch.randn(3, 1, 64, 128)  # type: ignore[operator]
    close(Inference(model)(image)[0], model(image))
    logits, probabilities, embedding = Inference(model, opset=23, embedding=True)(image)
    close(logits, model(image))
    close(probabilities, model(image).softmax(1))
    close(embedding, model.forward_head(model.forward_features(image), pre_logits=True))


@torch.no_grad()
def test_adapters_on_the_residual_stream() -> None:
    model = adapt(small_ast(), bottleneck=5, normed_input=False)
    wake(model)
    log_mel = torch.randn(2, 64, 128)
    close(Inference(model, waveform=False)(log_mel)[0], model(log_mel))


@torch.no_grad()
def test_from_waveform_or_from_log_mel() -> None:
    model = adapt(small_ast(), bottleneck=4)
    wake(model)
    waveform = torch.randn(2, 8000)
    log_mel = model.front_end(waveform)
    expected = model(log_mel)
    for logits, probabilities in (Inference(model)(waveform), Inference(model, waveform=False)(log_mel)):
        close(logits, expected)
        close(probabilities, expected.exp() / expected.exp().sum(1, keepdim=True))


def test_is_a_float32_copy_in_evaluation_mode() -> None:
    model = adapt(small_ast(), bottleneck=4, dropout=0.5).bfloat16().train()
    copy = Inference(model, adapters="conv2d")
    assert {parameter.dtype for parameter in copy.parameters()} == {torch.float32}
    assert not any(module.training for module in copy.modules())
    assert {module.backend for module in copy.modules() if isinstance(module, LoAA)} == {"reference"}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert all(module.training for module in model.modules())
    assert {module.backend for module in model.modules() if isinstance(module, LoAA)} == {"auto"}


def test_weights_are_in_memory_once() -> None:
    """Where they are float32 on the CPU; half precision is the copy's alone."""
    model = small_ast()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    copy = Inference(model)
    assert {parameter.data_ptr() for parameter in copy.model.head.parameters()} == {
        parameter.data_ptr() for parameter in model.head.parameters()
    }
    half = Inference(model, half=True)
    assert next(half.model.backbone.parameters()).dtype == torch.float16
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


@torch.no_grad()
def test_half_precision_leaves_front_end_and_head_alone() -> None:
    model = adapt(small_ast(), bottleneck=4)
    wake(model)
    half = Inference(merge(model), half=True)
    assert {parameter.dtype for parameter in half.model.backbone.parameters()} == {torch.float16}
    others = {*half.model.head.parameters(), *half.model.front_end.buffers()}
    assert {tensor.dtype for tensor in others} == {torch.float32}
    waveform = torch.randn(2, 8000)
    logits, probabilities = half(waveform)
    assert logits.dtype == probabilities.dtype == torch.float32
    difference = (logits - model(model.front_end(waveform))).abs().max()
    assert 1e-5 < difference < 0.02


@pytest.mark.parametrize("order", ["freq", "time"])
@pytest.mark.parametrize("taps", [((0, -1), (0, 0), (0, 1)), ((-1, 0), (0, 0), (2, 1)), ((0, 0),)])
def test_neighbours_as_an_index(order: str, taps: tuple) -> None:
    """Against `Between` itself, of which `merge` makes use; also where it is cut to the prefix tokens."""
    between = Between(rank=5, taps=taps, activation="gelu", freq_bins=3, prefix_tokens=2, token_order=order)  # type: ignore[arg-type]
    columns = torch.randn(2, 2 + 3 * 5, between.width, dtype=torch.float64)
    expected = between(columns)
    padded = F.pad(expected, (0, between.width - between.columns))
    torch.testing.assert_close(GraphBetween(between, 17, between.width)(columns), padded, atol=1e-15, rtol=0)
    bare = GraphBetween(between, 17, between.columns)(columns[..., : between.columns])
    torch.testing.assert_close(bare, expected, atol=1e-15, rtol=0)
    prefix = GraphBetween(between, 17, between.width, keep=2)(columns[:, :2])
    torch.testing.assert_close(prefix, padded[:, :2], atol=1e-15, rtol=0)


@torch.no_grad()
def test_the_last_block_computes_what_is_read() -> None:
    for model, tokens in ((small_ast(), 2), (small_vit(reg_tokens=3), 4)):
        vit = Inference(model).model
        vit = vit.backbone if isinstance(vit, AST) else vit
        assert isinstance(vit.blocks[-1], ReadOutBlock)
        count = 2 + 32 if isinstance(model, AST) else 1 + 3 + 32
        assert vit.blocks[-1](torch.randn(1, count, 48)).shape == (1, tokens, 48)
    mean = Inference(small_vit(global_pool="avg"))
    assert not any(isinstance(module, ReadOutBlock) for module in mean.modules())


@torch.no_grad()
def test_linears_that_are_more_than_linears_stay_as_they_are() -> None:
    """LoRA and its like wrap qkv: taking its weight alone would lose what they add."""

    class Doubling(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    model = timm.create_model("vit_tiny_patch16_224", img_size=(64, 128), in_chans=1, num_classes=5, **SMALL).eval()
    for block in model.blocks:
        block.attn.qkv = Doubling(48, 144)
    image = torch.randn(2, 1, 64, 128)
    close(Inference(model)(image)[0], model(image))
