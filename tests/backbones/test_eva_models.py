"""timm's class Eva: rotary positions on the model's own grid, gates, q and v biases apart, LayerScale, registers."""

import copy
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.models.eva import Eva
from torch import Tensor, nn

from fastloaa import AST, adapt, load_adapter, save_adapter
from fastloaa.attention import attention_maps
from fastloaa.export import load_merged, merge, save_merged, to_onnx
from fastloaa.grid import TokenGrid
from fastloaa.methods import build_method
from helpers.small import wake_adapters
from helpers.versions import skip_before

NARROW: dict[str, Any] = {"depth": 2, "embed_dim": 96, "num_heads": 6}
MODELS = [
    "vit_small_patch16_dinov3",  # registers, LayerScale, no biases of q, k and v
    "vit_small_plus_patch16_dinov3",  # SwiGLU of two Linears
    "vit_base_patch16_dinov3_qkvb",
    "eva02_small_patch14_224",  # GluMlp, q and v biases beside a qkv in one
    "eva02_base_patch14_224",  # q, k and v apart, a norm in the SwiGLU
    "eva02_base_patch16_clip_224",  # and one in attention
    "vit_pe_core_tiny_patch16_384",  # attention pooling
    "vit_pe_core_gigantic_patch14_448",  # no prefix tokens
    "vit_pe_spatial_tiny_patch16_512",
    "vit_small_patch16_rope_224",
    "vit_small_patch16_rope_mixed_ape_224",  # positions of each block and head, learned ones too
    "vit_medium_patch16_rope_reg1_gap_256",
]
GROUPED = {"num_kv_heads": (6, 3)}  # Sapiens: keys and values of 3 heads serve queries of 6, q and k are normed


def make(name: str, **options: Any) -> Eva:
    """A model of two narrow blocks on a 4 x 8 grid of a one-channel image, with nothing in it at zero or one."""
    arguments = {"img_size": (64, 128), "patch_size": 16, "in_chans": 1, "num_classes": 5} | NARROW | options
    model = timm.create_model(name, **arguments).eval()
    assert isinstance(model, Eva)
    stir(model)
    return model


def skip_unrotated(name: str) -> None:
    if "rope_mixed" in name:
        skip_before("timm", "1.0.31", "rotates in float32 alone, by angles of each head")


def stir(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


def adapted(model: Any) -> Any:
    wake_adapters(adapt(model, bottleneck=4))
    return model


@pytest.mark.parametrize("name", MODELS)
def test_starts_as_the_plain_model_and_trains_what_should_be(name: str) -> None:
    plain, image = make(name), torch.randn(3, 1, 64, 128)
    model = adapt(copy.deepcopy(plain), bottleneck=4)
    torch.testing.assert_close(model(image), plain(image))
    assert set(plain.state_dict()) < set(model.state_dict())
    adapted(model := copy.deepcopy(plain))
    assert (model(image) - plain(image)).abs().max() > 1e-2
    model.train()(image).mul(torch.randn(5)).sum().backward()
    for parameter_name, parameter in model.named_parameters():
        if "loaa_" in parameter_name or parameter_name.startswith(("head", "fc_norm")):
            assert parameter.grad is not None
            assert parameter.grad.any(), parameter_name
        else:
            assert parameter.grad is None, parameter_name


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_adapters_are_saved_loaded_and_merged_exactly(
    name: str, dtype: torch.dtype, bound: float, tmp_path: Path
) -> None:
    if dtype == torch.float64:
        skip_unrotated(name)
    plain, image = make(name).to(dtype), torch.randn(3, 1, 64, 128, dtype=dtype)
    model = adapted(copy.deepcopy(plain))
    expected = model(image)
    save_adapter(model, tmp_path / "adapters")
    assert torch.equal(load_adapter(copy.deepcopy(plain), tmp_path / "adapters")(image), expected)
    merged = merge(model)
    assert type(merged.blocks[0]) is type(plain.blocks[0])
    assert (merged(image) - expected).abs().max() < bound
    save_merged(merged, tmp_path / "merged")
    assert (load_merged(tmp_path / "merged", copy.deepcopy(plain))(image) - expected).abs().max() < bound


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_files_say_what_pytorch_says(name: str, tmp_path: Path) -> None:
    model = adapted(make(name))
    to_onnx(model, tmp_path / "model.onnx", waveform=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for batch in (1, 5):
        image = torch.randn(batch, 1, 64, 128)
        logits = torch.from_numpy(session.run(["logits"], {"image": image.numpy()})[0])
        assert (logits - model(image)).abs().max() < 1e-4


@torch.no_grad()
def test_heads_that_share_keys_and_values(tmp_path: Path) -> None:
    skip_before("timm", "1.0.30", "has no Sapiens models")
    model = adapted(make("vit_base_patch16_sapiens2", **GROUPED)).double()
    image = torch.randn(2, 1, 64, 128).double()
    assert (merge(model)(image) - model(image)).abs().max() < 1e-12
    for opset in (17, 23):  # with and without an operator for it
        to_onnx(model, tmp_path / "model.onnx", waveform=False, opset=opset)  # which compares


@pytest.mark.parametrize("name", [MODELS[0], MODELS[3], MODELS[5], MODELS[9], MODELS[10]])
@torch.no_grad()
def test_positions_in_ast_are_those_of_its_grid(name: str, tmp_path: Path) -> None:
    """As timm builds the model for an image of that size; patches of 16, spectrograms of 128 bands and 96 frames."""
    ast = AST(5, frames=96, backbone=name, backbone_options=NARROW).eval()
    stir(ast)
    assert ast.grid == TokenGrid(8, 6, ast.backbone.num_prefix_tokens)
    arguments = NARROW | {"img_size": (128, 96), "patch_size": 16, "in_chans": 1, "dynamic_img_size": False}
    theirs = timm.create_model(name, num_classes=0, **arguments).eval()
    theirs.load_state_dict(ast.backbone.state_dict())
    log_mel = torch.randn(2, 96, 128)
    image = log_mel.transpose(1, 2).unsqueeze(1)
    torch.testing.assert_close(ast.backbone.forward_features(image), theirs.forward_features(image))
    classifying = theirs.fc_norm(theirs.forward_features(image)[:, 0])
    torch.testing.assert_close(ast.embed(log_mel), classifying)
    assert ast.tokens_read == ast.grid.prefix_tokens
    ast.save(tmp_path / "model")
    torch.testing.assert_close(AST.load(tmp_path / "model").eval()(log_mel), ast(log_mel))
    adapted(ast)
    assert (merge(ast)(log_mel) - ast(log_mel)).abs().max() < 1e-5


@pytest.mark.parametrize("name", [MODELS[0], MODELS[3]])
def test_weights_of_images_go_into_ast(name: str, tmp_path: Path) -> None:
    source = timm.create_model(name, img_size=224, num_classes=3, patch_size=16, **NARROW)
    save_file(source.state_dict(), tmp_path / "timm.safetensors")
    ast = AST(5, frames=96, backbone=name, backbone_options=NARROW, weights=tmp_path / "timm.safetensors")
    loaded = ast.backbone.state_dict()
    for key, value in source.state_dict().items():
        if key == "patch_embed.proj.weight":
            torch.testing.assert_close(loaded[key], value.sum(1, keepdim=True))
        elif not key.startswith(("head", "pos_embed", "fc_norm")):
            assert torch.equal(loaded[key], value), key


@pytest.mark.parametrize("name", [MODELS[0], MODELS[3], MODELS[10]])
@torch.no_grad()
def test_adapters_and_positions_follow_another_size(name: str) -> None:
    model = adapted(make(name))
    for finished in (model, merge(model)):
        finished.set_input_size((128, 64))
    fresh = make(name, img_size=(128, 64))
    fresh.load_state_dict({k: v for k, v in model.state_dict().items() if "loaa_" not in k and ".blocks" not in k})
    wake_adapters(adapt(fresh, bottleneck=4))
    for ours, theirs in zip(model.modules(), fresh.modules(), strict=True):
        if hasattr(ours, "down"):
            theirs.load_state_dict(ours.state_dict())
    image = torch.randn(2, 1, 128, 64)
    torch.testing.assert_close(model(image), fresh(image))


@torch.no_grad()
def test_a_model_of_any_size_keeps_to_its_own() -> None:
    """DINOv3 takes images of any size in timm; adapters know one grid, and as many patches may lie in another."""
    model = make(MODELS[0])
    assert model.dynamic_img_size
    model(torch.randn(1, 1, 128, 64))
    adapted(model)
    for each in (model, merge(model)):
        each(torch.randn(1, 1, 64, 128))
        with pytest.raises(AssertionError, match=r"height \(128\) doesn't match model \(64\)"):
            each(torch.randn(1, 1, 128, 64))


@pytest.mark.parametrize("name", [MODELS[1], MODELS[5], MODELS[10]])
@pytest.mark.parametrize("finish", [lambda model: model, adapted, lambda model: merge(adapted(model))])
@torch.no_grad()
def test_attention_maps_are_of_rotated_queries_and_keys(
    name: str, finish: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_unrotated(name)
    model, image = finish(make(name)).double(), torch.randn(2, 1, 64, 128).double()
    given: list[tuple[Tensor, Tensor]] = []
    attention = F.scaled_dot_product_attention

    def noting(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        given.append((q, k))
        return attention(q, k, v, **options)

    with monkeypatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", noting)
        model(image)
    q, k = given[1]
    expected = (q @ k.transpose(2, 3) / q.shape[3] ** 0.5).softmax(3)
    torch.testing.assert_close(attention_maps(model, image, 1), expected)


@pytest.mark.parametrize("method", ["aat", "convpass", "probe"])
def test_other_methods_go_into_it(method: str) -> None:
    model = AST(5, frames=64, backbone=MODELS[0], backbone_options=NARROW)
    before, log_mel = copy.deepcopy(model), torch.randn(2, 64, 128)
    build_method(method).apply(model)
    torch.testing.assert_close(model(log_mel), before(log_mel))


@pytest.mark.parametrize(("method", "message"), [("lora", "has EvaAttention"), ("prompt", "rotary positions")])
def test_methods_that_do_not_fit_say_so(method: str, message: str) -> None:
    model = AST(5, frames=64, backbone=MODELS[0], backbone_options=NARROW)
    before = list(model.state_dict())
    with pytest.raises(TypeError, match=message):
        build_method(method).apply(model)
    assert list(model.state_dict()) == before


def test_blocks_that_norm_what_they_return_are_refused() -> None:
    model = make("eva02_enormous_patch14_clip_224")
    with pytest.raises(
        TypeError, match="block 0 is a EvaBlockPostNorm; adapters stand beside timm's pre-norm EvaBlock"
    ):
        adapt(model)
