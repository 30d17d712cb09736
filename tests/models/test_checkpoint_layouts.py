"""Checkpoints of other audio transformers, by the names and shapes that their code gives them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from fastloaa.models import WeightsError
from helpers.small import SMALL, small_ast

DEIT = "deit_tiny_distilled_patch16_224"
VIT = "vit_tiny_patch16_224"


def ast_checkpoint(grid: tuple[int, int], patch: tuple[int, int] = (16, 16), name: str = DEIT) -> dict[str, Tensor]:
    """State dict of AST's ASTModel (527 classes) in DataParallel: timm 0.4.5's DeiT under `v`, heads included."""
    vit = timm.create_model(name, **SMALL)  # its ImageNet heads stay where they were
    state = {f"module.v.{key}": torch.randn_like(value) for key, value in vit.state_dict().items()}
    prefix = 2 if name == DEIT else 1
    state["module.v.patch_embed.proj.weight"] = torch.randn(48, 1, *patch)
    state["module.v.pos_embed"] = torch.randn(1, prefix + grid[0] * grid[1], 48)
    state["module.mlp_head.0.weight"], state["module.mlp_head.0.bias"] = torch.randn(48), torch.randn(48)
    state["module.mlp_head.1.weight"], state["module.mlp_head.1.bias"] = torch.randn(527, 48), torch.randn(527)
    return state


def ssast_checkpoint(frames: int, patch: tuple[int, int], name: str = DEIT) -> dict[str, Tensor]:
    """State dict of SSAST's ASTModel after pretraining: AST's, without a head, with the layers of its pretext tasks."""
    state = ast_checkpoint((128 // patch[0], frames // patch[1]), patch, name)
    state = {key: value for key, value in state.items() if "mlp_head" not in key}
    state |= {"module.p_input_fdim": torch.tensor(128), "module.p_input_tdim": torch.tensor(frames)}
    state["module.mask_embed"] = torch.randn(1, 1, 48)
    for layer, width in (("cpredlayer", 256), ("gpredlayer", 256)):
        state[f"module.{layer}.0.weight"], state[f"module.{layer}.0.bias"] = torch.randn(48, 48), torch.randn(48)
        state[f"module.{layer}.2.weight"], state[f"module.{layer}.2.bias"] = torch.randn(width, 48), torch.randn(width)
    return state


def mae_ast_checkpoint() -> dict[str, dict]:
    """What fairseq saves of MAE-AST, an encoder layer and the first names of the decoder."""
    state = {"post_extract_proj.weight": torch.randn(48, 256), "encoder_mask_emb": torch.randn(48)}
    state["enc_sine_pos_embed.pe"] = torch.randn(1, 100, 48)
    for side in ("encoder", "decoder"):
        layer = f"{side}.layers.0."
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            state[f"{layer}self_attn.{name}.weight"] = torch.randn(48, 48)
            state[f"{layer}self_attn.{name}.bias"] = torch.randn(48)
        state[f"{layer}self_attn_layer_norm.weight"] = torch.randn(48)
    return {"cfg": {"model": {"layer_norm_first": False}}, "model": state}


def loaded_position(path: Path, **options: object) -> Tensor:
    """Position embedding [F, T, 48] of a model that has loaded the file, all else checked against it."""
    model = small_ast(weights=path, **options)
    state = torch.load(path, weights_only=True)
    for key, value in model.backbone.state_dict().items():
        if key != "pos_embed":
            assert torch.equal(value, state[f"module.v.{key}"]), key
    prefix = model.grid.prefix_tokens
    assert torch.equal(model.backbone.pos_embed[:, :prefix], state["module.v.pos_embed"][:, :prefix])
    return model.backbone.pos_embed[0, prefix:].reshape(model.grid.freq_bins, model.grid.time_steps, 48)


def source_position(state: dict[str, Tensor], grid: tuple[int, int]) -> Tensor:
    """The checkpoint's own, [F, T, 48]; its last F*T tokens."""
    return state["module.v.pos_embed"][0, -grid[0] * grid[1] :].reshape(*grid, 48)


def test_ast_of_audioset_on_its_own_grid(tmp_path: Path) -> None:
    """audioset_10_10: 128 x 1024 at stride 10, a grid of 12 x 101."""
    state = ast_checkpoint((12, 101))
    torch.save(state, tmp_path / "audioset.pth")
    position = loaded_position(tmp_path / "audioset.pth", frames=1024, stride=10)
    assert torch.equal(position, source_position(state, (12, 101)))


def test_ast_of_audioset_on_shorter_clips_without_overlap(tmp_path: Path) -> None:
    """Cut from the centre, as AST's code does: 32 of 101 steps from 50 - 16, 8 of 12 rows from 6 - 4."""
    state = ast_checkpoint((12, 101))
    torch.save(state, tmp_path / "audioset.pth")
    position = loaded_position(tmp_path / "audioset.pth", frames=512)
    assert torch.equal(position, source_position(state, (12, 101))[2:10, 34:66])


@pytest.mark.parametrize("grid", [(10, 85), (9, 73), (8, 64)])
def test_ast_of_audioset_with_other_strides(tmp_path: Path, grid: tuple[int, int]) -> None:
    """audioset_12_12, 14_14 and 16_16."""
    state = ast_checkpoint(grid)
    torch.save(state, tmp_path / "audioset.pth")
    position = loaded_position(tmp_path / "audioset.pth", frames=64)
    top, left = grid[0] // 2 - 4, grid[1] // 2 - 2
    assert torch.equal(position, source_position(state, grid)[top : top + 8, left : left + 4])


def test_ast_fine_tuned_on_clips_of_the_same_length(tmp_path: Path) -> None:
    """ESC-50's 512 frames at stride 10, a grid of 12 x 50 that no AudioSet model has."""
    state = ast_checkpoint((12, 50))
    torch.save(state, tmp_path / "esc50.pth")
    position = loaded_position(tmp_path / "esc50.pth", frames=512, stride=10)
    assert torch.equal(position, source_position(state, (12, 50)))
    with pytest.raises(WeightsError, match=r"600 after 2 prefix tokens, which is no 8 x 32 grid"):
        small_ast(frames=512, weights=tmp_path / "esc50.pth")


@pytest.mark.parametrize("name", [DEIT, VIT])  # SSAST's base384 and base384_nokd
def test_ssast_patches(tmp_path: Path, name: str) -> None:
    """16 x 16 patches of 1024 frames: 8 x 64; ESC-50's 512 frames take the middle 32 steps."""
    state = ssast_checkpoint(1024, (16, 16), name)
    torch.save(state, tmp_path / "ssast.pth")
    position = loaded_position(tmp_path / "ssast.pth", frames=512, backbone=name)
    assert torch.equal(position, source_position(state, (8, 64))[:, 16:48])


def test_ssast_stretched(tmp_path: Path) -> None:
    """Pretrained on 400 frames, 8 x 25; finer steps at stride 10 are interpolated along time, then along frequency."""
    state = ssast_checkpoint(400, (16, 16))
    torch.save(state, tmp_path / "ssast.pth")
    position = loaded_position(tmp_path / "ssast.pth", frames=400, stride=10)
    image = source_position(state, (8, 25)).permute(2, 0, 1)[None]
    image = F.interpolate(image, size=(8, 39), mode="bilinear")
    image = F.interpolate(image, size=(12, 39), mode="bilinear")
    torch.testing.assert_close(position, image[0].permute(1, 2, 0))


def test_ssast_frames(tmp_path: Path) -> None:
    """Patches of a whole frame's height and 2 frames' width: 1 x 512."""
    state = ssast_checkpoint(1024, (128, 2))
    torch.save(state, tmp_path / "ssast.pth")
    position = loaded_position(tmp_path / "ssast.pth", frames=64, patch=(128, 2), stride=(128, 2))
    assert torch.equal(position, source_position(state, (1, 512))[:, 256 - 16 : 256 + 16])


def test_without_dataparallel_and_as_safetensors(tmp_path: Path) -> None:
    state = ssast_checkpoint(1024, (16, 16))
    torch.save(state, tmp_path / "ssast.pth")
    save_file({key.removeprefix("module."): value for key, value in state.items()}, tmp_path / "ssast.safetensors")
    one, other = (small_ast(weights=tmp_path / f"ssast.{suffix}").backbone for suffix in ("pth", "safetensors"))
    for key, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (mae_ast_checkpoint, {}, "MAE-AST.*normalise after each residual sum"),
        (lambda: ssast_checkpoint(1024, (128, 2)), {}, r"patches of \(128, 2\), the model has \(16, 16\)"),
        (lambda: ssast_checkpoint(1024, (16, 16), VIT), {}, "which is no 8 x 64 grid"),
    ],
)
def test_refusals(tmp_path: Path, make: Callable[[], dict], options: dict, message: str) -> None:
    torch.save(make(), tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=message) as caught:
        small_ast(weights=tmp_path / "weights.pth", **options)
    assert "weights.pth" in str(caught.value)
    assert "\n" not in str(caught.value)
