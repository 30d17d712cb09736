"""Derivatives of adapted models by PyTorch's own tools, of every order and kind.

Models that use fused attention have no forward-mode and no second derivatives, adapters or not: those tests switch it
off.
"""

from collections.abc import Callable, Iterator

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian, jacrev, jvp, vmap

from fastloaa import LoAA, adapt
from helpers.adapted_models import build, each_model
from helpers.small import small_vit, wake_adapters


@pytest.fixture
def unfused() -> Iterator[None]:
    """Attention of single operations, which can be differentiated in every way."""
    timm.layers.set_fused_attn(False)
    yield
    timm.layers.set_fused_attn(True)


def trainable(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def loss(model: nn.Module, x: Tensor) -> Callable[[dict[str, Tensor]], Tensor]:
    return lambda parameters: functional_call(model, parameters, (x,)).square().sum()


def by_autograd(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return dict(zip(named, torch.autograd.grad(model(x).square().sum(), list(named.values())), strict=True))


def doubled(model: nn.Module) -> nn.Module:
    """In float64, so that derivatives can be compared closely."""
    return model.double()


@each_model
def test_func_grad(name: str) -> None:
    model, x = build(name)
    torch.testing.assert_close(grad(loss(model, x))(trainable(model)), by_autograd(model, x), rtol=1e-4, atol=1e-4)


@each_model
def test_gradients_of_single_clips_by_vmap(name: str) -> None:
    model, x = build(name)
    one = lambda parameters, clip: loss(model, clip[None])(parameters)  # noqa: E731
    found = vmap(grad(one), in_dims=(None, 0))(trainable(model), x)
    for index, clip in enumerate(x):
        for key, expected in by_autograd(model, clip[None]).items():
            torch.testing.assert_close(found[key][index], expected, rtol=1e-4, atol=1e-4)


@each_model
def test_an_ensemble_by_vmap(name: str) -> None:
    model, x = build(name)
    members = [{k: v * factor for k, v in trainable(model).items()} for factor in (1.0, 0.5, -2.0)]
    stacked = {k: torch.stack([member[k] for member in members]) for k in members[0]}
    with torch.no_grad():
        found = vmap(lambda parameters: functional_call(model, parameters, (x,)))(stacked)
        for given, member in zip(found, members, strict=True):
            torch.testing.assert_close(given, functional_call(model, member, (x,)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("which", ["down.weight", "up.weight", "down.bias", "up.bias"])
def test_vmap_over_one_of_the_weights(which: str) -> None:
    layer = LoAA(16, 4, freq_bins=2, prefix_tokens=1, bias=True)
    nn.init.normal_(layer.up.weight)
    x, out = torch.randn(1, 7, 16), torch.randn(1, 7, 16)
    stacked = torch.randn(3, *layer.get_parameter(which).shape)
    found = vmap(lambda weight: functional_call(layer, {which: weight}, (x, out, x)))(stacked)
    expected = [functional_call(layer, {which: weight}, (x, out, x)) for weight in stacked]
    torch.testing.assert_close(found, torch.stack(expected))


@each_model
def test_jacrev(name: str) -> None:
    model, x = build(name)
    key, weight = next((k, v) for k, v in trainable(model).items() if k.endswith("up.weight"))
    found = jacrev(lambda w: functional_call(model, {key: w}, (x,)))(weight)
    outputs = model(x)
    for place in ((0, 0), (1, 3)):
        (expected,) = torch.autograd.grad(outputs[place], model.get_parameter(key), retain_graph=True)
        torch.testing.assert_close(found[place], expected, rtol=1e-4, atol=1e-5)


@each_model
def test_many_gradients_at_once(name: str) -> None:
    model, x = build(name)
    outputs, parameters = model(x), [p for p in model.parameters() if p.requires_grad]
    basis = torch.eye(outputs.numel()).view(-1, *outputs.shape)
    found = torch.autograd.grad(outputs, parameters, basis, is_grads_batched=True, retain_graph=True)
    for index in (0, 7):
        expected = torch.autograd.grad(outputs, parameters, basis[index], retain_graph=True)
        torch.testing.assert_close([f[index] for f in found], list(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("unfused")
@pytest.mark.parametrize("name", ["AST", "timm ViT"])
def test_forward_mode(name: str) -> None:
    """Against differences, which know nothing of derivatives."""
    model, x = build(name)
    model, x = doubled(model), x.double()
    weights = {k: v.requires_grad_() for k, v in trainable(model).items()}
    tangents = ({k: torch.randn_like(v) for k, v in weights.items()}, torch.randn_like(x))
    run = lambda parameters, inputs: functional_call(model, parameters, (inputs,))  # noqa: E731
    _, found = jvp(run, (weights, x), tangents)
    step = 1e-6

    def moved(by: float) -> Tensor:
        return run({k: v + by * tangents[0][k] for k, v in weights.items()}, x + by * tangents[1])

    torch.testing.assert_close(found, (moved(step) - moved(-step)) / (2 * step), rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("unfused")
@pytest.mark.parametrize("normed", [True, False])
def test_second_derivatives(normed: bool) -> None:
    """A gradient penalty, as on the plain model, against the reference backend, which is PyTorch's own throughout."""
    found = []
    for backend in ("torch", "reference"):
        torch.manual_seed(0)
        model = adapt(small_vit(), bottleneck=4, bias=True, scale=0.5, normed_input=normed, backend=backend)  # type: ignore[arg-type]
        wake_adapters(model)
        model.double().requires_grad_(True)
        x = torch.randn(2, 1, 64, 128, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
        slope.square().sum().backward()
        found.append([x.grad, *(p.grad for p in model.parameters())])
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "silu"])
@pytest.mark.parametrize("order", ["freq", "time"])
def test_gradgradcheck(activation: str, order: str) -> None:
    layer = LoAA(
        4, 2, "time", freq_bins=2, prefix_tokens=1, token_order=order, bias=True, scale=0.5, activation=activation,  # type: ignore[arg-type]
        backend="torch", dtype=torch.float64,
    )  # fmt: skip
    nn.init.normal_(layer.up.weight)
    inputs = [torch.randn(1, 7, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradgradcheck(layer, inputs)
    assert torch.autograd.gradcheck(layer, inputs, check_forward_ad=True, check_batched_grad=True)


@pytest.mark.usefixtures("unfused")
def test_hessian() -> None:
    hessians = []
    for backend in ("torch", "reference"):
        model, x = build("timm ViT", backend)
        model, x = doubled(model), x.double()
        key, bias = next((k, v) for k, v in trainable(model).items() if k.endswith("down.bias"))
        hessians.append(hessian(lambda b, m=model, x=x, k=key: loss(m, x)({k: b}))(bias))
    torch.testing.assert_close(hessians[0], hessians[1])


def test_func_grad_compiles() -> None:
    model, x = build("timm ViT")
    compiled = torch.compile(grad(loss(model, x)), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(trainable(model)), by_autograd(model, x), rtol=1e-4, atol=1e-4)
