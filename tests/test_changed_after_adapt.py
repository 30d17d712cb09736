"""Models that are changed after `adapt` or `merge`: their adapters keep to the grid that the model has then.

What they should answer is what a model answers that was built that way, adapted then, and given the same weights.
"""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from fastloaa import LoAA, adapt, load_adapter, save_adapter
from fastloaa.adapters.files import AdapterError
from fastloaa.export import merge
from fastloaa.export.graph import Inference
from fastloaa.methods.convpass import Convpass, ConvpassMethod
from helpers.small import SMALL, small_ast, small_vit, wake_adapters
from helpers.versions import skip_before

transformers = pytest.importorskip("transformers")

Change = Callable[[nn.Module], object]


def adapted(model: nn.Module) -> nn.Module:
    adapt(model, bottleneck=4)
    wake_adapters(model)
    return model.eval()


def add_registers(vit: VisionTransformer, count: int = 3) -> None:
    """As their authors do it: after the class token, without position embeddings of the image's."""
    vit.reg_token = nn.Parameter(torch.randn(1, count, vit.embed_dim))
    prefix, patches = vit.pos_embed[:, : vit.num_prefix_tokens], vit.pos_embed[:, vit.num_prefix_tokens :]
    vit.pos_embed = nn.Parameter(torch.cat((prefix, torch.zeros_like(vit.reg_token), patches), 1))
    vit.num_reg_tokens, vit.num_prefix_tokens = count, vit.num_prefix_tokens + count


def drop_class_token(vit: VisionTransformer) -> None:
    vit.cls_token, vit.num_prefix_tokens, vit.global_pool = None, 0, "avg"
    vit.pos_embed = nn.Parameter(vit.pos_embed[:, 1:].clone())


def resample_by_hand(vit: VisionTransformer) -> None:
    vit.pos_embed = nn.Parameter(timm.layers.resample_abs_pos_embed(vit.pos_embed, (6, 5), (4, 8)))
    vit.patch_embed.img_size, vit.patch_embed.grid_size, vit.patch_embed.num_patches = (96, 80), (6, 5), 30


def make_dynamic(vit: VisionTransformer) -> None:
    weights = vit.patch_embed.state_dict()
    vit.dynamic_img_size, vit.patch_embed = True, small_vit(dynamic_img_size=True).patch_embed
    vit.patch_embed.load_state_dict(weights)


CHANGES: dict[str, tuple[Change, Callable[[], nn.Module]]] = {
    "more rows": (lambda vit: vit.set_input_size((128, 128)), lambda: small_vit(img_size=(128, 128))),
    "fewer rows": (lambda vit: vit.set_input_size((32, 128)), lambda: small_vit(img_size=(32, 128))),
    "more columns": (lambda vit: vit.set_input_size((64, 256)), lambda: small_vit(img_size=(64, 256))),
    "as many tokens in other rows": (lambda vit: vit.set_input_size((128, 64)), lambda: small_vit(img_size=(128, 64))),
    "one row": (lambda vit: vit.set_input_size((16, 512)), lambda: small_vit(img_size=(16, 512))),
    "other patches": (lambda vit: vit.set_input_size(patch_size=8), lambda: small_vit(patch_size=8)),
    "flat patches": (lambda vit: vit.set_input_size(patch_size=(8, 32)), lambda: small_vit(patch_size=(8, 32))),
    "both": (lambda vit: vit.set_input_size((48, 48), 8), lambda: small_vit(img_size=(48, 48), patch_size=8)),
    "twice": (
        lambda vit: (vit.set_input_size((128, 64)), vit.set_input_size((96, 32))),
        lambda: small_vit(img_size=(96, 32)),
    ),
    "resampled by hand": (resample_by_hand, lambda: small_vit(img_size=(96, 80))),
    "registers": (add_registers, lambda: small_vit(reg_tokens=3)),
    "no class token": (drop_class_token, lambda: small_vit(class_token=False, global_pool="avg", fc_norm=False)),
    "last block cut off": (lambda vit: vit.prune_intermediate_layers([1], prune_head=False), small_vit),
    "first block cut off": (lambda vit: setattr(vit, "blocks", vit.blocks[1:]), lambda: small_vit(depth=1)),
    "other classes": (lambda vit: vit.reset_classifier(7), lambda: small_vit(num_classes=7)),
    "no classes": (lambda vit: vit.reset_classifier(0), lambda: small_vit(num_classes=0)),
    "mean of the patches": (lambda vit: vit.reset_classifier(5, "avg"), None),  # type: ignore[dict-item]
}


def image_for(vit: VisionTransformer) -> Tensor:
    return torch.randn(2, 1, *vit.patch_embed.img_size)


@pytest.mark.parametrize("name", [name for name, (_, fresh) in CHANGES.items() if fresh is not None])
def test_adapters_follow(name: str) -> None:
    change, fresh = CHANGES[name]
    depth = 3 if name == "last block cut off" else 2
    model = adapted(small_vit(depth=depth))
    model(torch.randn(1, 1, 64, 128))  # it has run before
    change(model)
    expected = adapted(fresh())
    expected.load_state_dict({k.replace("blocks.1.", "blocks.0.") if "first" in name else k: v for k, v in _own(model)})
    x = image_for(model)  # type: ignore[arg-type]
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected(x))
        torch.testing.assert_close(model.forward_features(x), expected.forward_features(x))
        for given, wanted in zip(
            model.forward_intermediates(x, intermediates_only=True),
            expected.forward_intermediates(x, intermediates_only=True),
            strict=True,
        ):
            torch.testing.assert_close(given, wanted)


def _own(model: nn.Module) -> list[tuple[str, Tensor]]:
    """State dict by the names that the blocks had: a sliced Sequential keeps them."""
    return list(model.state_dict().items())


def test_another_pooling_leaves_the_blocks_as_they_are() -> None:
    model = adapted(small_vit())
    x = torch.randn(2, 1, 64, 128)
    before = model.forward_features(x)[:, 1:].mean(1)
    CHANGES["mean of the patches"][0](model)
    torch.testing.assert_close(model.forward_head(model.forward_features(x), pre_logits=True), before)


@pytest.mark.parametrize("name", ["more rows", "as many tokens in other rows", "flat patches", "registers"])
def test_merged_models_follow(name: str) -> None:
    change, fresh = CHANGES[name]
    model = merge(adapted(small_vit()))
    model(torch.randn(1, 1, 64, 128))
    change(model)
    expected = merge(adapted(fresh()))
    expected.load_state_dict(model.state_dict())
    x = image_for(model)  # type: ignore[arg-type]
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected(x))
        torch.testing.assert_close(copy.deepcopy(model)(x), expected(x))


def test_what_reads_adapters_without_running_them_follows_too() -> None:
    model = adapted(small_vit())
    model.set_input_size((128, 64))
    x = torch.randn(2, 1, 128, 64)
    merged, inference = merge(model), Inference(model)  # before any forward pass
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(merged(x), expected)
        torch.testing.assert_close(inference(x)[0], expected)


def test_a_copy_follows_itself_alone() -> None:
    model = adapted(small_vit())
    x = torch.randn(2, 1, 64, 128)
    before = model(x)
    other = copy.deepcopy(model)
    other.set_input_size((128, 64))
    other(torch.randn(2, 1, 128, 64))
    torch.testing.assert_close(model(x), before)
    assert {m.freq_bins for m in model.modules() if isinstance(m, LoAA)} == {4}
    assert {m.freq_bins for m in other.modules() if isinstance(m, LoAA)} == {8}


def test_a_compiled_model_follows() -> None:
    model = adapted(small_vit())
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    compiled(torch.randn(2, 1, 64, 128))
    model.set_input_size((128, 64))
    x = torch.randn(2, 1, 128, 64)
    found = compiled(x)
    torch.testing.assert_close(found, model(x))
    assert {m.freq_bins for m in model.modules() if isinstance(m, LoAA)} == {8}


def test_adapters_saved_afterwards_are_those_of_the_new_grid(tmp_path: Path) -> None:
    model = adapted(small_vit())
    model.set_input_size((128, 64))
    save_adapter(model, tmp_path / "a.safetensors")
    backbone = {k: v for k, v in model.state_dict().items() if "loaa_" not in k}
    fresh, old = small_vit(img_size=(128, 64)), small_vit()
    fresh.load_state_dict(backbone)
    x = torch.randn(2, 1, 128, 64)
    torch.testing.assert_close(load_adapter(fresh, tmp_path / "a.safetensors")(x), model(x))
    with pytest.raises(AdapterError, match="freq_bins=8, this model has freq_bins=4"):
        load_adapter(old, tmp_path / "a.safetensors", check_backbone=False)


def test_what_was_frozen_stays_frozen() -> None:
    skip_before("timm", "1.0.31", "trains whatever set_input_size makes")
    model = adapted(small_vit())
    model.set_input_size((128, 64), 8)
    assert {n for n, p in model.named_parameters() if p.requires_grad and "loaa_" not in n} == {
        "head.weight",
        "head.bias",
    }


@pytest.mark.parametrize(
    ("change", "size", "message"),
    [
        (make_dynamic, (64, 128), "keep to no fixed grid"),
        (lambda vit: setattr(vit, "patch_drop", timm.layers.PatchDropout(0.5)), (64, 128), "keep to no fixed grid"),
        (lambda vit: setattr(vit.patch_embed, "strict_img_size", False), (64, 128), "keep to no fixed grid"),
        (
            lambda vit: (add_registers(vit), setattr(vit, "num_prefix_tokens", 1)),
            (64, 128),
            r"given 36 tokens, and the model says 1 \+ 4 \* 8 = 33; ",
        ),
        (
            lambda vit: setattr(vit, "patch_embed", nn.Sequential(vit.patch_embed, nn.Identity())),
            (64, 128),
            "grid_size",
        ),
    ],
    ids=["dynamic size", "patches dropped", "any size", "registers not counted", "another patch embedding"],
)
@pytest.mark.parametrize("finish", [lambda model: model, merge], ids=["adapted", "merged"])
def test_what_cannot_be_followed_is_said(change: Change, size: tuple[int, int], message: str, finish) -> None:  # type: ignore[no-untyped-def]
    model = finish(adapted(small_vit()))
    change(model)
    with pytest.raises((TypeError, ValueError, AttributeError), match=message) as error:
        model(torch.randn(1, 1, *size))
    assert "\n" not in str(error.value)


def test_registers_in_ast() -> None:
    model = adapted(small_ast(backbone="vit_tiny_patch16_224"))
    expected = adapted(small_ast(backbone="vit_tiny_patch16_224", backbone_options=SMALL | {"reg_tokens": 3}))
    add_registers(model.backbone)  # type: ignore[arg-type]
    expected.load_state_dict(model.state_dict())
    x = torch.randn(2, 64, 128)
    torch.testing.assert_close(model(x), expected(x))
    torch.testing.assert_close(merge(model)(x), expected(x))


def test_ast_keeps_its_size_and_says_so() -> None:
    for model in (small_ast(), adapted(small_ast()), merge(adapted(small_ast()))):
        with pytest.raises(ValueError, match="keeps to the size that it was built for"):
            model.backbone.set_input_size((128, 128))  # type: ignore[union-attr, operator]
        with pytest.raises(ValueError, match=r"expected log-mel \[batch, frames=64, mel_bins=128\]"):
            model(torch.randn(1, 128, 128))
        with pytest.raises(ValueError, match=r"expected spectrograms \[batch, 1, mel_bins=128, frames=64\]"):
            model.backbone.forward_features(torch.randn(1, 1, 64, 128))  # type: ignore[union-attr, operator]


def test_another_method_follows() -> None:
    plain = small_ast(backbone="vit_tiny_patch16_224", backbone_options=SMALL | {"reg_tokens": 3})
    model = ConvpassMethod(bottleneck=4).apply(small_ast(backbone="vit_tiny_patch16_224"))
    expected = ConvpassMethod(bottleneck=4).apply(plain)
    for module in model.modules():
        if isinstance(module, Convpass):
            nn.init.normal_(module.up.weight)
    add_registers(model.backbone)
    expected.load_state_dict(model.state_dict())
    x = torch.randn(2, 64, 128)
    torch.testing.assert_close(model(x), expected(x))


def hugging_face(mel_bins: int = 128, frames: int = 64) -> nn.Module:
    config = transformers.ASTConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96, num_labels=5,
        max_length=frames, num_mel_bins=mel_bins, frequency_stride=16, time_stride=16,
    )  # fmt: skip
    return transformers.ASTForAudioClassification(config).eval()


@pytest.mark.parametrize(("mel_bins", "frames"), [(64, 64), (64, 128), (128, 32), (32, 256), (256, 64)])
def test_transformers_ast_follows_its_config(mel_bins: int, frames: int) -> None:
    model, expected = adapted(hugging_face()), adapted(hugging_face(mel_bins, frames))
    embeddings = model.audio_spectrogram_transformer.embeddings
    embeddings.position_embeddings = nn.Parameter(
        torch.randn_like(expected.audio_spectrogram_transformer.embeddings.position_embeddings)
    )
    model.config.num_mel_bins, model.config.max_length = mel_bins, frames
    expected.load_state_dict(model.state_dict())
    x = torch.randn(2, frames, mel_bins)
    torch.testing.assert_close(model(x).logits, expected(x).logits)


def test_transformers_ast_whose_config_is_not_what_it_is() -> None:
    model = adapted(hugging_face())
    model.config.num_mel_bins = 64
    with pytest.raises(ValueError, match=r"num_mel_bins=64\] as model.config says, got \(1, 64, 128\)"):
        model(torch.randn(1, 64, 128))
    model = adapted(hugging_face())
    embeddings = model.audio_spectrogram_transformer.embeddings
    embeddings.position_embeddings = nn.Parameter(torch.randn(1, 2 + 4 * 4, 48))
    with pytest.raises(ValueError, match=r"num_mel_bins=128\] as model.config says, got \(1, 64, 64\)"):
        model(torch.randn(1, 64, 64))


def test_transformers_ast_given_a_transposed_spectrogram() -> None:
    with pytest.raises(ValueError, match=r"expected input_values \[batch, max_length=64, num_mel_bins=128\]"):
        adapted(hugging_face())(torch.randn(1, 128, 64))
