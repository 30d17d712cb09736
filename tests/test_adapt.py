"""adapt(): counts, freezing, where adapters stand, and what refuses them."""

import copy

import pytest
import timm
import torch
from torch import nn

from fastloaa import AST, LoAA, adapt, trainable_parameters
from fastloaa.backbones import AdaptedBlock, backbone_of
from fastloaa.grid import TokenGrid
from helpers.small import SMALL, small_ast, small_vit, wake_adapters

VITS = {
    "cls": lambda: small_vit(),
    "cls + dist": lambda: small_vit("deit_tiny_distilled_patch16_224"),
    "registers": lambda: small_vit(reg_tokens=4),
    "no prefix": lambda: small_vit(class_token=False, global_pool="avg"),
    "LayerScale": lambda: small_vit(init_values=0.3),
    "pre-norm": lambda: small_vit(pre_norm=True),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attn", "ffn", "bottleneck", "expected"),
    [
        ("time", None, 36, 2_026_028),  # table 1, 2.026M; 2% in table 2
        (None, "freq", 36, 2_026_028),
        ("linear", None, 108, 2_026_028),
        ((3, 3), None, 12, 2_026_028),
        ("time", None, 72, 4_016_684),  # 4.017M
        ("time", "freq", 36, 4_016_684),  # 5%
        ("time", "freq", 72, 7_997_996),  # 10%
        (None, None, 36, 35_372),  # linear probe, 0.04%
    ],
)
def test_the_papers_parameter_counts(attn: object, ffn: object, bottleneck: int, expected: int) -> None:
    with torch.device("meta"):
        model = timm.create_model("deit_base_distilled_patch16_384", num_classes=0)
        model.head = nn.Sequential(nn.LayerNorm(768), nn.Linear(768, 44))
    assert trainable_parameters(adapt(model, attn, ffn, bottleneck)) == expected  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_default_model_is_the_papers() -> None:
    model = adapt(AST(44, frames=400))
    assert trainable_parameters(model) == 4_016_684
    assert model.grid == TokenGrid(8, 25, 2)


@pytest.mark.parametrize("make", [*VITS.values(), small_ast], ids=[*VITS, "AST"])
def test_starts_as_the_plain_model_and_then_differs(make) -> None:  # type: ignore[no-untyped-def]
    model = make()
    inputs = torch.randn(2, 64, 128)
    x = inputs if isinstance(model, AST) else inputs.unsqueeze(1)
    plain = model(x)
    assert adapt(model, bottleneck=4) is model
    torch.testing.assert_close(model(x), plain)  # not equal: some kernels round by the alignment of fresh memory
    wake_adapters(model)
    assert (model(x) - plain).abs().max() > 1e-3


@pytest.mark.parametrize("make", [*VITS.values(), small_ast], ids=[*VITS, "AST"])
def test_adapters_do_what_the_block_plus_branch_does(make) -> None:  # type: ignore[no-untyped-def]
    """An adapted block against timm's own block and a reference adapter, added by hand."""
    model = make()
    plain = copy.deepcopy(getattr(model, "backbone", model).blocks[0])
    adapt(model, bottleneck=4)
    wake_adapters(model)
    adapted = getattr(model, "backbone", model).blocks[0]
    x = torch.randn(2, backbone_of(model).grid.tokens, 48)
    for module in (adapted.loaa_attn, adapted.loaa_ffn):
        module.backend = "reference"
    middle = x + plain.ls1(plain.attn(plain.norm1(x))) + adapted.loaa_attn(plain.norm1(x))
    expected = middle + plain.ls2(plain.mlp(plain.norm2(middle))) + adapted.loaa_ffn(plain.norm2(middle))
    for module in (adapted.loaa_attn, adapted.loaa_ffn):
        module.backend = "auto"
    torch.testing.assert_close(adapted(x), expected)


@pytest.mark.parametrize(("attn", "ffn"), [("time", "freq"), ("time", None), (None, (3, 3)), (None, None)])
@pytest.mark.parametrize("make", [*VITS.values(), small_ast], ids=[*VITS, "AST"])
def test_a_step_moves_what_is_trainable_and_nothing_else(make, attn, ffn) -> None:  # type: ignore[no-untyped-def]
    model = adapt(make(), attn, ffn, bottleneck=4).train()
    wake_adapters(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    x = torch.randn(8, 64, 128)
    loss = nn.functional.cross_entropy(
        model(x if isinstance(model, AST) else x.unsqueeze(1)), torch.arange(8).remainder(5)
    )
    loss.backward()
    optimiser.step()
    for name, parameter in model.named_parameters():
        head = name.startswith(("head", "fc_norm"))
        assert parameter.requires_grad == ("loaa_" in name or head)
        if parameter.requires_grad:
            assert parameter.grad is not None
            assert parameter.grad.abs().max() > 0, name
            assert not torch.equal(parameter, before[name]), name
        else:
            assert parameter.grad is None
            assert torch.equal(parameter, before[name]), name


def test_backbone_keeps_its_state_dict_keys() -> None:
    model = small_ast()
    keys = set(model.state_dict())
    adapt(model, bottleneck=4)
    assert keys < set(model.state_dict())
    assert all("loaa_" in key for key in set(model.state_dict()) - keys)


def test_dropped_paths_leave_the_adapter_alone() -> None:
    model = adapt(small_vit(drop_path_rate=0.99), bottleneck=4).train()
    wake_adapters(model)
    block = model.blocks[1]  # drop_path 0.99: the block's own output is all but always dropped
    x = torch.randn(1, 33, 48)
    normed = block.norm1(x)
    middle = x + block.loaa_attn(normed)
    torch.manual_seed(0)
    torch.testing.assert_close(block(x), middle + block.loaa_ffn(block.norm2(middle)))


def test_attention_mask_reaches_the_attention() -> None:
    model = adapt(small_vit(), bottleneck=4)
    x = torch.randn(2, 33, 48)
    mask = torch.zeros(33, 33, dtype=torch.bool)
    mask[:, :5] = True
    block = model.blocks[0]
    assert (block(x, attn_mask=mask) - block(x)).abs().max() > 1e-4


def test_checkpointed_activations_give_the_same_gradients() -> None:
    model = adapt(small_vit(), bottleneck=4)
    wake_adapters(model)
    x = torch.randn(2, 1, 64, 128)
    grads = []
    for checkpointing in (False, True):
        model.set_grad_checkpointing(checkpointing)
        model.zero_grad()
        model(x).square().sum().backward()
        grads.append([p.grad.clone() for p in model.parameters() if p.requires_grad])
    torch.testing.assert_close(grads[0], grads[1])


def test_adapters_are_born_in_the_dtype_of_the_model() -> None:
    model = adapt(small_vit().double(), bottleneck=4)
    assert {p.dtype for p in model.parameters()} == {torch.float64}


def test_options_reach_the_adapters() -> None:
    model = adapt(
        small_ast(), "time", (1, 5), 7, bias=True, scale=2.0, dropout=0.1, activation="relu", backend="reference"
    )
    layers = [m for m in model.modules() if isinstance(m, LoAA)]
    assert len(layers) == 4
    for layer in layers:
        assert (layer.scale, layer.dropout, layer.activation, layer.backend) == (2.0, 0.1, "relu", "reference")
        assert (layer.freq_bins, layer.prefix_tokens, layer.token_order) == (8, 2, "freq")
        assert layer.down.bias is not None
        assert layer.down.out_channels == 7
    block = model.backbone.blocks[0]
    assert isinstance(block, AdaptedBlock)
    assert block.loaa_attn.down.kernel_size == (1, 3)
    assert block.loaa_ffn.down.kernel_size == (1, 5)


def test_what_cannot_be_adapted_is_left_as_it_was_and_said() -> None:
    twice = adapt(small_ast(), bottleneck=4)
    cases = [
        (nn.Linear(3, 3), TypeError, "got Linear"),
        (twice, ValueError, "has been adapted already"),
        (small_vit(patch_drop_rate=0.5), TypeError, "patch_drop_rate"),
        (
            timm.create_model("vit_tiny_patch16_224", block_fn=timm.models.vision_transformer.ResPostBlock, **SMALL),
            TypeError,
            "block 0 is a ResPostBlock",
        ),
    ]
    for model, error, message in cases:
        before = list(model.state_dict())
        with pytest.raises(error, match=message):
            adapt(model, bottleneck=4)
        assert list(model.state_dict()) == before
    for bad in ({"attn": (2, 1)}, {"bottleneck": 0}):
        model = small_ast()
        before = list(model.state_dict())
        with pytest.raises(ValueError, match=r"odd|at least 1"):
            adapt(model, **bad)  # type: ignore[arg-type]
        assert list(model.state_dict()) == before
