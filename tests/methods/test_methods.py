"""Every method: what trains, what stays, and what is kept of it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small import small_ast
from tone_set import small_recipe

from fastloaa import AST, LoAA, trainable_parameters
from fastloaa.methods import METHODS, Method, OptionError, build_method
from fastloaa.training.optimiser import build_optimiser

OPTIONS: dict[str, dict[str, Any]] = {"loaa": {"bottleneck": 4}, "probe": {}, "full": {}}
HEAD = 2 * 48 + 48 * 5 + 5  # LayerNorm and Linear of the small model, 48 wide, 5 classes


def test_every_method_is_tested_here() -> None:
    assert OPTIONS.keys() == METHODS.keys()


@pytest.fixture(params=OPTIONS)
def method(request: pytest.FixtureRequest) -> Method:
    return build_method(request.param, OPTIONS[request.param])


def take_steps(model: AST, count: int) -> None:
    """Optimiser steps on random spectrograms, the gradients of the last one left in place."""
    optimiser = build_optimiser(model, small_recipe(Path("unused"), lr=1e-3, weight_decay=0.1))
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
    # One adapter: two kernels of 3 taps between 48 and 4 channels; two blocks with two adapters each.
    adapters = 2 * 2 * (2 * 3 * 48 * 4)
    counts = {name: trainable_parameters(build_method(name, OPTIONS[name]).apply(small_ast())) for name in METHODS}
    whole = sum(p.numel() for p in small_ast().parameters())
    assert counts == {"loaa": adapters + HEAD, "probe": HEAD, "full": whole}


def test_saved_and_loaded_alone(method: Method, tmp_path: Path) -> None:
    backbone = tmp_path / "backbone.safetensors"
    small_ast().save(backbone)
    torch.manual_seed(1)  # another head and, without the file, another backbone
    model = method.apply(small_ast(weights=backbone, labels="abcde", mean=-6.0, std=3.0)).train()
    take_steps(model, 2)
    path = tmp_path / method.weights_file
    method.save(model, path)
    torch.manual_seed(2)
    loaded = method.load(path, backbone).eval()
    x = torch.randn(3, 64, 128)
    assert torch.equal(loaded(x), model.eval()(x))
    assert loaded.config() == model.config()


def test_loaa_options_reach_the_adapters() -> None:
    options = {"attn": [1, 5], "ffn": None, "bottleneck": 3, "bias": True, "scale": 2, "dropout": 0.1}
    model = build_method("loaa", options | {"activation": "relu", "backend": "reference"}).apply(small_ast())
    adapters = [module for module in model.modules() if isinstance(module, LoAA)]
    assert len(adapters) == 2  # one for each block, beside attention
    for adapter in adapters:
        assert adapter.down.weight.shape == (3, 48, 1, 5)
        assert adapter.down.bias is not None
        assert (adapter.scale, adapter.dropout) == (2.0, 0.1)
        assert (adapter.activation, adapter.backend) == ("relu", "reference")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lora", {}, "unknown method 'lora'; expected loaa, probe, full"),
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
