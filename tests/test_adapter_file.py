"""Adapter files: what they hold, and what refuses them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from fastloaa import AST, LoAA, adapt, concat, load_adapter, save_adapter, trainable_parameters
from fastloaa.adapters.files import AdapterError, adapter_state, backbone_fingerprint
from fastloaa.files import FileError, read_safetensors
from helpers.small import SMALL, small_ast, small_vit, wake_adapters


def trained(**options: object) -> AST:
    """An adapted model whose trainable weights are all random."""
    torch.manual_seed(3)
    model = adapt(small_ast(), bottleneck=4, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2)
    return model


def fresh(**options: object) -> AST:
    """The same backbone, never adapted."""
    torch.manual_seed(3)
    return small_ast(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("attn", ["time", None])
@pytest.mark.parametrize("ffn", ["freq", (1, 5), None])
def test_round_trip_into_a_fresh_and_into_an_adapted_model(tmp_path: Path, attn: object, ffn: object) -> None:
    model = trained(attn=attn, ffn=ffn, bias=True, scale=0.5)
    path = tmp_path / "new folder" / "esc.safetensors"
    save_adapter(model, path)
    x = torch.randn(2, 64, 128)
    other = fresh()
    assert load_adapter(other, path) is other
    assert torch.equal(other(x), model(x))
    assert trainable_parameters(other) == trainable_parameters(model)
    again = adapt(fresh(), attn=attn, ffn=ffn, bottleneck=4, bias=True, scale=0.5)  # type: ignore[arg-type]
    assert torch.equal(load_adapter(again, path)(x), model(x))
    assert list(path.parent.iterdir()) == [path]


def test_holds_the_trainable_weights_and_nothing_more(tmp_path: Path) -> None:
    model = trained()
    save_adapter(model, tmp_path / "a.safetensors")
    state = load_file(tmp_path / "a.safetensors")
    assert sum(t.numel() for t in state.values()) == trainable_parameters(model)
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        metadata = json.loads(file.metadata()["fastloaa"])
    assert metadata["adapt"]["attn"] == [1, 3]
    assert metadata["model"]["num_classes"] == 5
    rebuilt = AST.from_config(metadata["model"])
    rebuilt.backbone.load_state_dict(fresh().backbone.state_dict())
    load_adapter(rebuilt.eval(), tmp_path / "a.safetensors")
    x = torch.randn(1, 64, 128)
    assert torch.equal(rebuilt(x), model(x))


def test_a_timm_vit_too(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = adapt(small_vit(reg_tokens=2), bottleneck=4)
    wake_adapters(model)
    save_adapter(model, tmp_path / "a.safetensors")
    torch.manual_seed(3)
    other = load_adapter(small_vit(reg_tokens=2), tmp_path / "a.safetensors")
    x = torch.randn(1, 1, 64, 128)
    assert torch.equal(other(x), model(x))


def test_other_frames_are_fine_since_kernels_slide(tmp_path: Path) -> None:
    model = trained()
    save_adapter(model, tmp_path / "a.safetensors")
    longer = fresh(frames=128)
    longer.backbone.blocks.load_state_dict(fresh().backbone.blocks.state_dict())
    assert load_adapter(longer, tmp_path / "a.safetensors")(torch.randn(1, 128, 128)).shape == (1, 5)


def test_a_bfloat16_copy_is_the_same_backbone(tmp_path: Path) -> None:
    model = trained()
    assert backbone_fingerprint(fresh().bfloat16()) == backbone_fingerprint(model) == backbone_fingerprint(fresh())
    save_adapter(model, tmp_path / "a.safetensors")
    load_adapter(fresh().bfloat16(), tmp_path / "a.safetensors")


def test_other_frozen_weights_are_refused_unless_meant(tmp_path: Path) -> None:
    save_adapter(trained(), tmp_path / "a.safetensors")
    other = fresh()
    with torch.no_grad():
        other.backbone.blocks[1].mlp.fc1.weight[0, 0] += 1
    before = other.state_dict()
    with pytest.raises(AdapterError, match="other frozen weights"):
        load_adapter(other, tmp_path / "a.safetensors")
    assert list(other.state_dict()) == list(before)
    load_adapter(other, tmp_path / "a.safetensors", check_backbone=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone_options": SMALL | {"embed_dim": 96}}, r"dim=48, this model has dim=96"),
        ({"backbone_options": SMALL | {"depth": 3}}, r"depth=2, this model has depth=3"),
        ({"backbone": "vit_tiny_patch16_224"}, r"prefix_tokens=2, this model has prefix_tokens=1"),
        ({"mel_bins": 64}, r"freq_bins=8, this model has freq_bins=4"),
        ({"num_classes": 6}, r"holds \(5, 48\) for head.1.weight, the model has \(6, 48\)"),
    ],
)
def test_a_model_it_was_not_made_for_is_refused_and_left_alone(tmp_path: Path, options: dict, message: str) -> None:
    save_adapter(trained(), tmp_path / "a.safetensors")
    model = fresh(**options)
    before = list(model.state_dict())
    with pytest.raises(AdapterError, match=message) as error:
        load_adapter(model, tmp_path / "a.safetensors", check_backbone=False)
    assert "\n" not in str(error.value)
    assert list(model.state_dict()) == before


def test_another_adapter_shape_is_refused(tmp_path: Path) -> None:
    save_adapter(trained(), tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match="un-adapted model"):
        load_adapter(adapt(fresh(), bottleneck=8), tmp_path / "a.safetensors")


def rescale(model: AST) -> None:
    for adapter in (module for module in model.modules() if isinstance(module, LoAA)):
        adapter.scale = 0.25


def sum_everywhere(model: AST) -> None:
    for block in model.backbone.blocks:
        block.loaa_attn, block.loaa_ffn = (concat([each, each], [1, -2]) for each in (block.loaa_attn, block.loaa_ffn))


def take_out(model: AST) -> None:
    for block in model.backbone.blocks:
        block.loaa_attn = None


@pytest.mark.parametrize("change", [rescale, sum_everywhere, take_out])
def test_adapters_are_saved_as_they_are_by_now(tmp_path: Path, change: Callable[[AST], None]) -> None:
    model = trained(scale=0.5)
    change(model)
    save_adapter(model, tmp_path / "a.safetensors")
    x = torch.randn(2, 64, 128)
    torch.testing.assert_close(load_adapter(fresh(), tmp_path / "a.safetensors")(x), model(x))
    load_adapter(model, tmp_path / "a.safetensors")


def test_adapters_that_no_configuration_describes_are_not_saved(tmp_path: Path) -> None:
    changes: dict[str, Callable[[nn.Module], object]] = {
        "block 1 has other adapters": lambda block: setattr(block, "loaa_ffn", concat([block.loaa_ffn])),
        "beside block 1 stands a Sequential": lambda block: setattr(block, "loaa_ffn", nn.Sequential(block.loaa_ffn)),
    }
    for message, change in changes.items():
        model = trained(scale=0.5)
        change(model.backbone.blocks[1])
        with pytest.raises(ValueError, match=message):
            save_adapter(model, tmp_path / "a.safetensors")
    model = trained()
    for block in model.backbone.blocks:
        block.loaa_ffn.scale = 2.0
    with pytest.raises(ValueError, match="those beside the FFN"):
        save_adapter(model, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_what_trains_and_is_not_in_the_file_is_said(tmp_path: Path) -> None:
    model = trained()
    model.backbone.pos_embed.requires_grad_(True)
    with pytest.warns(UserWarning, match=r"1 parameters train that are not in the file, such as backbone\.pos_embed"):
        save_adapter(model, tmp_path / "a.safetensors")
    model.requires_grad_(False)
    save_adapter(model, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_model_takes_the_files_labels(tmp_path: Path) -> None:
    names = ["rain", "dog", "cat", "sea", "wind"]
    model = trained()
    model.labels = tuple(names)
    save_adapter(model, tmp_path / "a.safetensors")
    assert load_adapter(fresh(), tmp_path / "a.safetensors").labels == tuple(names)
    own = [name.upper() for name in names]
    assert load_adapter(fresh(labels=own), tmp_path / "a.safetensors").labels == tuple(own)
    with pytest.raises(AdapterError, match="labels in another order"):
        load_adapter(fresh(labels=sorted(names)), tmp_path / "a.safetensors")


def test_another_front_end_is_said(tmp_path: Path) -> None:
    save_adapter(trained(), tmp_path / "a.safetensors")
    with pytest.warns(UserWarning, match=r"trained behind a front end with mean=-4\.26.*, the model's has mean=-6\.6,"):
        load_adapter(fresh(mean=-6.6), tmp_path / "a.safetensors")


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("not a tensor in sight")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    save_adapter(trained(), tmp_path / "whole.safetensors")
    data = (tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "truncated.safetensors").write_bytes(data[: len(data) // 2])
    for name, message in {
        "missing": "no such file",
        "text": "not a readable safetensors file",
        "empty": "not a readable safetensors file",
        "truncated": "not a readable safetensors file",
        "foreign": "not an adapter file",
    }.items():
        with pytest.raises(FileError, match=message) as error:
            load_adapter(fresh(), tmp_path / f"{name}.safetensors")
        assert "\n" not in str(error.value)


def test_saving_what_was_never_adapted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no adapters to save"):
        save_adapter(fresh(), tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_state_of_adapters_is_part_of_the_models_own(tmp_path: Path) -> None:
    model = trained()
    assert set(adapter_state(model)) < set(model.state_dict())
    save_adapter(model, tmp_path / "a.safetensors")
    assert set(read_safetensors(tmp_path / "a.safetensors")[0]) == set(adapter_state(model))
