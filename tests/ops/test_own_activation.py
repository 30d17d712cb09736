"""An activation of one's own: the entry of docs/extending.md, and everything that computes with it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses import FakeTensorMode

from fastloaa import LoAA, adapt, load_adapter, save_adapter
from fastloaa.errors import ArgumentError
from fastloaa.export import merge
from fastloaa.ops import functional
from fastloaa.ops.functional import BackendError, choose_backend
from fastloaa.training import Recipe
from helpers import extending
from helpers.small import small_ast, small_vit, wake_adapters


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    with extending.example("An activation"):
        yield


def test_adapters_compute_it() -> None:
    torch.manual_seed(0)
    layer = LoAA(16, 4, "linear", freq_bins=2, activation="hardswish", dtype=torch.float64)
    nn.init.normal_(layer.up.weight)
    x = (2 * torch.randn(3, 6, 16, dtype=torch.float64)).requires_grad_()
    down, up = layer.down.weight[:, :, 0, 0], layer.up.weight[:, :, 0, 0]
    by_hand = F.hardswish(x @ down.T) @ up.T
    torch.testing.assert_close(layer(x), by_hand)
    wanted = torch.autograd.grad(by_hand.square().sum(), (x, *layer.parameters()))
    given = torch.autograd.grad(layer(x).square().sum(), (x, *layer.parameters()))
    torch.testing.assert_close(given, wanted)


def test_it_is_saved_and_merged(tmp_path: Path) -> None:
    """The blocks' own, as well: where nothing wants a gradient, both are computed in one pass in place."""
    plain = small_vit(act_layer=nn.Hardswish).double()
    x = torch.randn(2, 1, 64, 128).double()
    state = plain.state_dict()
    model = adapt(plain, bottleneck=4, activation="hardswish")
    wake_adapters(model)
    save_adapter(model, tmp_path / "adapters")
    fresh = small_vit(act_layer=nn.Hardswish).double()
    fresh.load_state_dict(state)
    torch.testing.assert_close(load_adapter(fresh, tmp_path / "adapters")(x), model(x))
    merged = merge(model)
    with torch.no_grad():
        assert (merged(x) - model(x)).abs().max() < 1e-12
    assert (merged(x) - model(x)).abs().max() < 1e-12


def test_recipes_take_it() -> None:
    recipe = Recipe(data="sounds", method_options={"activation": "hardswish", "bottleneck": 4})
    adapters = [m for m in recipe.build_method().apply(small_ast()).modules() if isinstance(m, LoAA)]
    assert {adapter.activation for adapter in adapters} == {"hardswish"}
    with pytest.raises(ArgumentError, match="activation is one of gelu, gelu_tanh, relu, silu, hardswish; got 'mish'"):
        LoAA(16, 4, freq_bins=2, activation="mish")


def test_on_gpus_pytorch_computes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen without one: shape and device are all that the choice asks for."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    monkeypatch.setattr(functional, "NOT_COMPILED", None)
    with FakeTensorMode():
        x = torch.empty(1, 4, 16, device="cuda")
    assert choose_backend(x, (1, 3), 4, activation="gelu").backend == "triton"
    choice = choose_backend(x, (1, 3), 4, activation="hardswish")
    assert choice.backend == "torch"
    assert "activation 'hardswish' has no formula in the kernels" in choice.reason
    with pytest.raises(BackendError, match="activation 'hardswish' has no formula in the kernels"):
        choose_backend(x, (1, 3), 4, "triton", activation="hardswish")
