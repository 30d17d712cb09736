"""AST: pooling, patches, position embedding, weights from files."""

import json
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from fastloaa import AST, TokenGrid, adapt
from fastloaa.audio import FRONT_ENDS, EpicSoundsFrontEnd
from fastloaa.files import FileError
from fastloaa.models import WeightsError
from fastloaa.models.weights import fit_position_embedding
from helpers.small import SMALL, small_ast

DEIT = "deit_tiny_distilled_patch16_224"


def test_tokens_are_frequency_major_after_cls_and_dist() -> None:
    """One loud patch at (f, t) changes token 2 + f*T + t of the embedding and no other."""
    model = small_ast()
    silence = torch.zeros(1, 64, 128)
    loud = silence.clone()
    loud[0, 2 * 16 : 3 * 16, 5 * 16 : 6 * 16] = 1.0  # frames 32..47 are t=2, mel bins 80..95 are f=5
    embed = model.backbone.patch_embed
    changed = embed(loud.transpose(1, 2)[:, None]) - embed(silence.transpose(1, 2)[:, None])
    assert changed.abs().sum(-1).nonzero()[:, 1].tolist() == [5 * 4 + 2]
    assert model.grid == TokenGrid(8, 4, 2)


@pytest.mark.parametrize(
    ("backbone", "options", "pool"),
    [
        (DEIT, {}, lambda t: (t[:, 0] + t[:, 1]) / 2),
        ("vit_tiny_patch16_224", {}, lambda t: t[:, 0]),
        ("vit_tiny_patch16_224", {"reg_tokens": 4}, lambda t: t[:, 0]),
        ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "avg"}, lambda t: t.mean(1)),
    ],
)
def test_pooling(backbone: str, options: dict, pool) -> None:  # type: ignore[no-untyped-def]
    model = small_ast(backbone=backbone, backbone_options=SMALL | options)
    x = torch.randn(2, 64, 128)
    tokens = model.backbone.forward_features(x.transpose(1, 2)[:, None])
    expected = model.head(model.backbone.fc_norm(pool(tokens)))
    torch.testing.assert_close(model(x), expected)


def test_overlapping_patches() -> None:
    model = small_ast(frames=100, stride=10)
    assert (model.grid.freq_bins, model.grid.time_steps) == (12, 9)
    assert model(torch.randn(2, 100, 128)).shape == (2, 5)


def test_weights_of_an_image_model(tmp_path: Path) -> None:
    """Colour channels are summed, the position embedding is cut to the grid, everything else is unchanged."""
    image_model = timm.create_model(DEIT, num_classes=7, **SMALL)  # 14 x 14 grid, as published
    torch.nn.init.normal_(image_model.pos_embed)
    state = image_model.state_dict()
    save_file(state, tmp_path / "image.safetensors")
    torch.save({"model": state}, tmp_path / "image.pth")
    for name in ("image.safetensors", "image.pth"):
        model = small_ast(weights=tmp_path / name)
        loaded = model.backbone.state_dict()
        assert torch.equal(loaded["patch_embed.proj.weight"], state["patch_embed.proj.weight"].sum(1, keepdim=True))
        grid = state["pos_embed"][:, 2:].reshape(14, 14, 48)
        assert torch.equal(loaded["pos_embed"][:, :2], state["pos_embed"][:, :2])
        # 8 of 14 rows from 7 - 4 = 3, 4 of 14 columns from 7 - 2 = 5
        assert torch.equal(loaded["pos_embed"][:, 2:].reshape(8, 4, 48), grid[3:11, 5:9])
        for key, value in loaded.items():
            if key not in ("patch_embed.proj.weight", "pos_embed"):
                assert torch.equal(value, state[key]), key


def ast_position_embedding(embedding: torch.Tensor, f_dim: int, t_dim: int, side: int) -> torch.Tensor:
    """The steps of AST's published ast_models.py, in its order: time first, then frequency."""
    image = embedding[:, 2:].transpose(1, 2).reshape(1, -1, side, side)
    if t_dim <= side:
        image = image[:, :, :, int(side / 2) - int(t_dim / 2) : int(side / 2) - int(t_dim / 2) + t_dim]
    else:
        image = F.interpolate(image, size=(side, t_dim), mode="bilinear")
    if f_dim <= side:
        image = image[:, :, int(side / 2) - int(f_dim / 2) : int(side / 2) - int(f_dim / 2) + f_dim, :]
    else:
        image = F.interpolate(image, size=(f_dim, t_dim), mode="bilinear")
    return torch.cat([embedding[:, :2], image.reshape(1, -1, f_dim * t_dim).transpose(1, 2)], dim=1)


@pytest.mark.parametrize("target", [(8, 64), (8, 25), (12, 101), (8, 8), (24, 24), (5, 7), (30, 3)])
def test_position_embedding_is_fitted_as_ast_does(target: tuple[int, int]) -> None:
    embedding = torch.randn(1, 2 + 24 * 24, 6)
    expected = ast_position_embedding(embedding, *target, 24)
    torch.testing.assert_close(fit_position_embedding(embedding, None, target, 2), expected)


def test_save_and_load(tmp_path: Path) -> None:
    model = small_ast(labels=list("abcde"), mean=-3.5, std=2.5, stride=(16, 8))
    model.save(tmp_path / "model.safetensors")
    loaded = AST.load(tmp_path / "model.safetensors").eval()
    x = torch.randn(2, 64, 128)
    assert torch.equal(loaded(x), model(x))
    assert loaded.config() == model.config()
    assert loaded.labels == tuple("abcde")


def test_backbone_of_a_saved_model_for_longer_clips(tmp_path: Path) -> None:
    model = small_ast()
    model.save(tmp_path / "model.safetensors")
    longer = small_ast(num_classes=3, frames=160, weights=tmp_path / "model.safetensors")
    source = model.backbone.pos_embed[:, 2:].reshape(1, 8, 4, 48).permute(0, 3, 1, 2)
    expected = F.interpolate(source, size=(8, 10), mode="bilinear").permute(0, 2, 3, 1).reshape(1, 80, 48)
    torch.testing.assert_close(longer.backbone.pos_embed[:, 2:], expected)
    assert torch.equal(longer.backbone.blocks[1].mlp.fc1.weight, model.backbone.blocks[1].mlp.fc1.weight)
    assert longer.head[1].weight.shape == (3, 48)


def test_fresh_weights_are_none_of_them_zero_or_constant() -> None:
    model = AST(5, frames=64, backbone=DEIT, backbone_options=SMALL)
    assert model.backbone.pos_embed.std() > 0.01
    assert model.backbone.patch_embed.proj.weight.std() > 0.01


def test_front_end_goes_with_the_model() -> None:
    model = small_ast(frames=64, sample_rate=8000)
    assert model(model.front_end(torch.randn(2, 8000))).shape == (2, 5)


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    wide = timm.create_model(DEIT, num_classes=0, depth=2, embed_dim=96, num_heads=3)
    save_file(wide.state_dict(), tmp_path / "wide.safetensors")
    patches = timm.create_model("vit_tiny_patch16_224", patch_size=8, num_classes=0, **SMALL)
    save_file(patches.state_dict(), tmp_path / "patches.safetensors")
    small_ast().save(tmp_path / "model.safetensors")
    (tmp_path / "text.pth").write_text("hello")
    torch.save([1, 2], tmp_path / "list.pth")
    adapted = adapt(small_ast(), bottleneck=4)
    cases = [
        (lambda: small_ast(weights=tmp_path / "wide.safetensors"), WeightsError, "does not fit the backbone"),
        (lambda: small_ast(weights=tmp_path / "patches.safetensors"), WeightsError, r"patches of \(8, 8\)"),
        (lambda: small_ast(weights=tmp_path / "none.safetensors"), FileError, "no such file"),
        (lambda: small_ast(weights=tmp_path / "none.pth"), FileError, "no such weights file"),
        (lambda: small_ast(weights=tmp_path / "text.pth"), FileError, "not a PyTorch state dict"),
        (lambda: small_ast(weights=tmp_path / "list.pth"), WeightsError, "holds no state dict"),
        (lambda: AST.load(tmp_path / "wide.safetensors"), FileError, "was not written by AST.save"),
        (lambda: small_ast(num_classes=0), ValueError, "num_classes is a whole number, at least 1; got num_classes=0"),
        (lambda: small_ast(labels=["a"]), ValueError, "1 labels were given for 5 classes"),
        (lambda: small_ast(backbone="resnet18", backbone_options={}), TypeError, "timm VisionTransformer"),
        (lambda: small_ast()(torch.zeros(1, 128, 64)), ValueError, r"frames=64, mel_bins=128\], got \(1, 128, 64\)"),
        (lambda: adapted.save(tmp_path / "x.safetensors"), ValueError, "save_adapter"),
    ]
    for make, kind, message in cases:
        with pytest.raises(kind, match=message) as error:
            make()
        assert "\n" not in str(error.value)


def test_no_code_is_run_from_a_weights_file(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return Path.touch, (tmp_path / "ran",)

    torch.save({"x": Harmful()}, tmp_path / "harmful.pth")
    with pytest.raises(FileError, match="not a PyTorch state dict"):
        small_ast(weights=tmp_path / "harmful.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", FRONT_ENDS)
def test_a_front_end_has_its_own_settings_unless_others_are_given(kind: str) -> None:
    own = FRONT_ENDS[kind](64, 128).config()
    assert small_ast(front_end=kind).front_end.config() == own
    assert small_ast(front_end=kind, std=3.0).front_end.config() == own | {"std": 3.0}


def test_the_front_end_of_epic_sounds() -> None:
    model = small_ast(front_end="epic-sounds", frames=64, sample_rate=24000, mean=0.0, std=0.5)
    assert isinstance(model.front_end, EpicSoundsFrontEnd)
    again = AST.from_config(json.loads(json.dumps(model.config())))
    again.load_state_dict(model.state_dict())
    again.eval()
    waveform = torch.randn(2, 6000)
    with torch.no_grad():
        torch.testing.assert_close(again(again.front_end(waveform)), model(model.front_end(waveform)))
    with pytest.raises(ValueError, match="front_end is one of ast, epic-sounds"):
        small_ast(front_end="mfcc")
