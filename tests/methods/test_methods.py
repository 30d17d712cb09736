"""Every method: what trains, what stays, and what is kept of it."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fastloaa import AST, LoAA, adapt, trainable_parameters
from fastloaa.adapters.files import AdapterError
from fastloaa.extras import MissingPackageError
from fastloaa.files import FileError
from fastloaa.methods import METHODS, Method, OptionError, build_method
from helpers.small import small_ast

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "loaa": ("loaa", {"bottleneck": 4}),
    "parallel": ("parallel", {"bottleneck": 4}),
    "probe": ("probe", {}),
    "full": ("full", {}),
    "convpass": ("convpass", {"bottleneck": 4, "scale": 0.5}),
    "aat": ("aat", {"bottleneck": 4}),
    "lora": ("lora", {"rank": 4, "alpha": 8.0, "dropout": 0.1}),
    "lora-mlp": ("lora", {"rank": 4, "targets": ["fc1", "fc2"]}),
    "prompt": ("prompt", {"tokens": 3}),
    "prompt-deep": ("prompt", {"tokens": 3, "deep": True}),
}
INSERTED = sorted(CASES.keys() - {"loaa", "parallel", "probe", "full"})
HEAD = 2 * 48 + 48 * 5 + 5  # LayerNorm and Linear of the small model, 48 wide, 5 classes


def test_every_method_is_tested_here() -> None:
    assert {name for name, _ in CASES.values()} == METHODS.keys()


@pytest.fixture(params=CASES)
def method(request: pytest.FixtureRequest) -> Method:
    return build_method(*CASES[request.param])


@pytest.mark.parametrize("name", ["lora", "prompt"])
def test_what_is_saved_is_what_was_inserted_whatever_trains_by_then(name: str, tmp_path: Path) -> None:
    method = build_method(*CASES[name])
    torch.manual_seed(0)
    model = small_ast()
    model.save(tmp_path / "backbone.safetensors")
    with pytest.raises(ValueError, match=f"nothing of the method '{name}' is in the model"):
        method.save(model, tmp_path / "a.safetensors")
    method.apply(model).requires_grad_(False)
    with torch.no_grad():
        model.head[1].bias.add_(1)
    method.save(model, tmp_path / "a.safetensors")
    model.backbone.norm.requires_grad_(True)
    with pytest.warns(UserWarning, match=r"2 parameters train .* backbone\.norm\.weight"):
        method.save(model, tmp_path / "b.safetensors")
    x = torch.randn(1, 64, 128)
    for file in ("a.safetensors", "b.safetensors"):
        loaded = method.load(tmp_path / file, tmp_path / "backbone.safetensors").eval()
        torch.testing.assert_close(loaded(x), model.eval()(x))


def take_steps(model: AST, count: int) -> None:
    """Optimiser steps on random spectrograms, the gradients of the last one left in place."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    for _ in range(count):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(torch.randn(6, 64, 128)), torch.arange(6) % 5).backward()
        optimiser.step()


def test_what_trains_gets_a_gradient_and_what_is_frozen_stays(method: Method) -> None:
    model = method.apply(small_ast().requires_grad_(False)).train()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    take_steps(model, 2)  # the first only reaches up-projections that start from zero
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
            assert not torch.equal(parameter, before[name]), name
        else:
            assert parameter.grad is None, name
            assert torch.equal(parameter, before[name]), name


def test_how_much_trains() -> None:
    """By hand: 48 wide, MLP 192 wide, two blocks, two adapters each."""
    counts = {case: trainable_parameters(build_method(*CASES[case]).apply(small_ast())) for case in CASES}
    whole = sum(p.numel() for p in small_ast().parameters())
    assert counts == {
        "loaa": 4 * (2 * 3 * 48 * 4) + HEAD,
        "parallel": 4 * (2 * 48 * 4) + HEAD,
        "probe": HEAD,
        "full": whole,
        "convpass": 4 * (48 * 4 + 4 + 4 * 4 * 9 + 4 + 4 * 48 + 48) + HEAD,
        "aat": 4 * (48 * 4 + 4 + 4 * 48 + 48) + HEAD,
        "lora": 2 * (4 * (48 + 144) + 4 * (48 + 48)) + HEAD,
        "lora-mlp": 2 * (2 * 4 * (48 + 192)) + HEAD,
        "prompt": 3 * 48 + HEAD,
        "prompt-deep": 2 * 3 * 48 + HEAD,
    }


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("prompt")])
def test_starts_as_the_plain_model(case: str) -> None:
    model = small_ast()
    x = torch.randn(2, 64, 128)
    plain = model(x)
    torch.testing.assert_close(build_method(*CASES[case]).apply(model)(x), plain)


@pytest.mark.parametrize("case", INSERTED)
def test_the_backbone_keeps_its_names(case: str) -> None:
    model = small_ast()
    before = {name.replace(".base_layer", "") for name in model.state_dict()}
    build_method(*CASES[case]).apply(model)
    assert before <= {name.replace(".base_layer", "") for name in model.state_dict()}  # peft wraps the Linears


def test_saved_and_loaded_alone(method: Method, tmp_path: Path) -> None:
    backbone = tmp_path / "backbone.safetensors"
    small_ast().save(backbone)
    torch.manual_seed(1)  # another head and, without the file, another backbone
    model = method.apply(small_ast(weights=backbone, labels=list("abcde"), mean=-6.0, std=3.0)).train()
    take_steps(model, 2)
    path = tmp_path / method.weights_file
    method.save(model, path)
    torch.manual_seed(2)
    loaded = method.load(path, backbone).eval()
    x = torch.randn(3, 64, 128)
    assert torch.equal(loaded(x), model.eval()(x))
    assert loaded.config() == model.config()


@pytest.mark.parametrize("case", INSERTED)
def test_the_file_holds_what_trained_and_no_code(case: str, tmp_path: Path) -> None:
    method = build_method(*CASES[case])
    model = method.apply(small_ast())
    method.save(model, tmp_path / "a.safetensors")
    held = load_file(tmp_path / "a.safetensors")
    assert sum(tensor.numel() for tensor in held.values()) == trainable_parameters(model)
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert f'"method": "{method.name}"' in file.metadata()["fastloaa"]
    assert list(tmp_path.iterdir()) == [tmp_path / "a.safetensors"]


@pytest.mark.parametrize("case", INSERTED)
def test_another_backbone_is_refused(case: str, tmp_path: Path) -> None:
    backbone, path = tmp_path / "backbone.safetensors", tmp_path / "a.safetensors"
    small_ast().save(backbone)
    method = build_method(*CASES[case])
    method.save(method.apply(small_ast(weights=backbone)), path)
    other = small_ast(weights=backbone)
    with torch.no_grad():
        other.backbone.blocks[1].attn.qkv.weight[0, 0] += 1
    other.save(backbone)
    with pytest.raises(AdapterError, match="other frozen weights") as caught:
        method.load(path, backbone)
    assert "\n" not in str(caught.value)


def test_a_bfloat16_backbone_is_the_same_backbone(tmp_path: Path) -> None:
    backbone, path = tmp_path / "backbone.safetensors", tmp_path / "a.safetensors"
    small_ast().save(backbone)
    method = build_method(*CASES["lora"])
    model = method.apply(small_ast(weights=backbone))
    for parameter in model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    method.save(model, path)
    method.load(path, backbone)


def test_files_that_are_none(tmp_path: Path) -> None:
    path, method = tmp_path / "a.safetensors", build_method(*CASES["aat"])
    backbone = tmp_path / "backbone.safetensors"
    small_ast().save(backbone)
    method.save(method.apply(small_ast(weights=backbone)), path)
    with pytest.raises(FileError, match="not saved by the method 'convpass'"):
        build_method("convpass").load(path, backbone)
    with pytest.raises(FileError, match="no such file"):
        method.load(tmp_path / "none.safetensors", backbone)
    state = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file({name: state[name] for name in state if "blocks.0.mlp_adapter.up.bias" not in name}, path, metadata)
    with pytest.raises(FileError, match=r"1 tensors missing.*blocks\.0\.mlp_adapter\.up\.bias"):
        method.load(path, backbone)


@pytest.mark.parametrize("case", INSERTED)
def test_twice_is_refused_and_the_whole_model_is_not_saved_as_plain(case: str, tmp_path: Path) -> None:
    method = build_method(*CASES[case])
    model = method.apply(small_ast())
    for again in (method.apply, adapt):
        with pytest.raises(ValueError, match="has been adapted already"):
            again(model)
    with pytest.raises(ValueError, match="has been adapted already"):
        method.apply(adapt(small_ast(), bottleneck=4))
    with pytest.raises(ValueError, match="has adapters"):
        model.save(tmp_path / "x.safetensors")


@pytest.mark.parametrize("case", INSERTED)
def test_checkpointed_activations_give_the_same_gradients(case: str) -> None:
    name, options = CASES[case]
    model = build_method(name, options | ({"dropout": 0.0} if "dropout" in options else {})).apply(small_ast()).eval()
    take_steps(model, 1)
    x, gradients = torch.randn(2, 64, 128), []
    for checkpointing in (False, True):
        model.backbone.set_grad_checkpointing(checkpointing)
        model.zero_grad()
        model(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.requires_grad])  # type: ignore[union-attr]
    torch.testing.assert_close(gradients[0], gradients[1])


def test_loaa_options_reach_the_adapters() -> None:
    options = {"attn": [1, 5], "ffn": None, "bottleneck": 3, "bias": True, "scale": 2, "dropout": 0.1}
    options["normed_input"] = False
    model = build_method("loaa", options | {"activation": "relu", "backend": "reference"}).apply(small_ast())
    adapters = [module for module in model.modules() if isinstance(module, LoAA)]
    assert len(adapters) == 2  # one for each block, beside attention
    for adapter in adapters:
        assert adapter.down.weight.shape == (3, 48, 1, 5)
        assert adapter.down.bias is not None
        assert (adapter.scale, adapter.dropout) == (2.0, 0.1)
        assert (adapter.activation, adapter.backend) == ("relu", "reference")
    assert not any(block.normed_input for block in model.backbone.blocks)


def test_lora_without_peft_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingPackageError, match=r"^peft is not installed; pip install 'fastloaa\[peft\]'$"):
        build_method("lora")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lara", {}, "unknown method 'lara'; did you mean 'lora'?"),
        ("x", {}, "unknown method 'x'; expected loaa, parallel, probe, full, convpass, aat, lora or prompt"),
        ("parallel", {"bottleneck": 0}, "bottleneck=0"),
        ("convpass", {"bottleneck": 0}, "bottleneck is at least 1, got 0"),
        ("convpass", {"dropout": 1.0}, "dropout is a fraction in [0, 1), got 1.0"),
        ("aat", {"bottleneck": 0}, "bottleneck is at least 1, got 0"),
        ("lora", {"rank": 0}, "rank is at least 1, got 0"),
        ("lora", {"targets": ["q"]}, "targets is a list, each 'qkv', 'proj', 'fc1' or 'fc2', got ['q']"),
        ("lora", {"targets": []}, "targets names at least one of qkv, proj, fc1, fc2, got none"),
        ("prompt", {"tokens": 0}, "tokens is at least 1, got 0"),
        ("loaa", {"botleneck": 3}, "unknown loaa option 'botleneck'; did you mean 'bottleneck'?"),
        ("probe", {"attn": "time"}, "unknown probe option 'attn'; there are none"),
        ("loaa", {"attn": None, "ffn": None}, 'give a kernel for one, or choose the method "probe"'),
        ("loaa", {"attn": "tim"}, "attn is 'time', 'freq' or 'linear', [an integer, an integer] or null, got 'tim'"),
        ("loaa", {"attn": [2, 3]}, "a pair (frequency, time) of odd sizes; got (2, 3)"),
        ("loaa", {"bottleneck": 0}, "bottleneck=0"),
        ("loaa", {"dropout": 1.0}, "dropout is a probability in [0, 1), got 1.0"),
        ("loaa", {"activation": "tanh"}, "activation is one of gelu"),
    ],
)
def test_refusals(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        build_method(name, options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
