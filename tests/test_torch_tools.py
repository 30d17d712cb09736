"""PyTorch's own tools do with an adapted model what they do with the plain one.

Models that use fused attention have no forward-mode and no second derivatives, adapters or not: those tests switch it
off. Transformers' AST cannot be traced symbolically, and has no `forward_intermediates`.
"""

import copy
import io
from collections.abc import Callable, Iterator
from importlib.metadata import version

import pytest
import timm
import torch
from packaging.version import Version
from timm.models._features_fx import GraphExtractNet
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian, jacrev, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parameters_to_vector, parametrizations, prune, vector_to_parameters
from torchvision.models.feature_extraction import create_feature_extractor

from fastloaa import AST, LoAA, adapt
from fastloaa.audio import EpicSoundsFrontEnd, FrontEnd, LogMel
from fastloaa.export import merge
from helpers.small import small_ast, small_vit, wake_adapters
from helpers.versions import skip_before


class Logits(nn.Module):
    """Transformers' AST with a tensor for an answer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).logits


def hugging_face() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.ASTConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96, num_labels=5,
        max_length=64, num_mel_bins=128, frequency_stride=16, time_stride=16,
    )  # fmt: skip
    return transformers.ASTForAudioClassification(config).eval()


def _adapted(model: nn.Module, backend: str) -> nn.Module:
    adapt(model, bottleneck=4, bias=True, scale=0.5, backend=backend)  # type: ignore[arg-type]
    wake_adapters(model)
    return model


def build(name: str, backend: str = "auto") -> tuple[nn.Module, Tensor]:
    """An adapted model, and two inputs for it."""
    torch.manual_seed(0)
    x = torch.randn(2, 64, 128)
    if name == "AST":
        return _adapted(small_ast(), backend), x
    if name == "timm ViT":
        return _adapted(small_vit(), backend), x.unsqueeze(1)
    return Logits(_adapted(hugging_face(), backend)), x


NAMES = ["AST", "timm ViT", "transformers"]
each_model = pytest.mark.parametrize("name", NAMES)


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


# Derivatives


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


# The device "meta"


@each_model
def test_shapes_alone_on_meta(name: str) -> None:
    model, x = build(name)
    out = model.to("meta")(x.to("meta"))
    assert out.is_meta
    assert out.shape == (2, 5)


def test_built_on_meta() -> None:
    expected, x = build("AST")
    with torch.device("meta"):
        model = adapt(small_ast(), bottleneck=4, bias=True, scale=0.5)
        assert model(torch.empty(2, 64, 128)).shape == (2, 5)
        assert model.front_end(torch.empty(2, 10_000)).shape == (2, 64, 128)
    assert all(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    waveform = torch.randn(2, 10_000)
    ways = [
        lambda m: m.to_empty(device="cpu").load_state_dict(expected.state_dict()),
        lambda m: m.load_state_dict(copy.deepcopy(expected.state_dict()), assign=True),
    ]
    for materialise in ways:
        loaded = copy.deepcopy(model)
        materialise(loaded)
        torch.testing.assert_close(loaded(x), expected(x))
        torch.testing.assert_close(loaded.front_end(waveform), expected.front_end(waveform))


@pytest.mark.parametrize("make", [LogMel, lambda: FrontEnd(64), EpicSoundsFrontEnd])
def test_front_ends_on_meta_and_back(make: Callable[[], nn.Module]) -> None:
    waveform = torch.randn(1, 12_000)
    expected = make()(waveform)
    with torch.device("meta"):
        module = make()
    assert module(torch.empty(1, 12_000, device="meta")).shape == expected.shape
    assert torch.equal(copy.deepcopy(module).to_empty(device="cpu")(waveform), expected)
    assert torch.equal(module(waveform), expected)
    assert torch.equal(make().to("meta").to_empty(device="cpu").half()(waveform), expected)
    assert not module.state_dict()


# Tracing


@each_model
@pytest.mark.parametrize("gradients", [False, True])
def test_jit_trace(name: str, gradients: bool) -> None:
    model, x = build(name)
    with torch.set_grad_enabled(gradients):
        traced = torch.jit.trace(model, x)  # which compares the two itself
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    other = torch.randn_like(x)
    torch.testing.assert_close(torch.jit.load(file)(other), model(other))


def skip_untraceable(name: str) -> None:
    """Skip a timm ViT where timm passes `is_causal` on (from 1.0.26) and PyTorch's attention takes no proxy for it."""
    if name == "timm ViT" and Version(version("timm")) >= Version("1.0.26"):
        skip_before("torch", "2.11", f"does not trace the attention of timm {version('timm')}, adapted or not")


@pytest.mark.parametrize("name", ["AST", "timm ViT"])
@pytest.mark.parametrize("merged", [False, True])
def test_features_by_symbolic_tracing(name: str, merged: bool) -> None:
    skip_untraceable(name)
    model, x = build(name)
    model = merge(model) if merged else model
    block = "backbone.blocks.1" if name == "AST" else "blocks.1"
    read: list[Tensor] = []
    hook = model.get_submodule(block).register_forward_hook(lambda *given: read.append(given[2]))
    with torch.no_grad():
        answer = model(x)
        hook.remove()
        torch.testing.assert_close(torch.fx.symbolic_trace(model)(x), answer)
        torch.testing.assert_close(create_feature_extractor(model, [block])(x)[block], read[0])
        torch.testing.assert_close(GraphExtractNet(model, {block: "0"})(x), read[0])


@pytest.mark.parametrize("stage", ["plain", "adapted", "merged"])
def test_forward_intermediates_of_ast(stage: str) -> None:
    model = small_ast() if stage == "plain" else build("AST")[0]
    model = merge(model) if stage == "merged" else model
    assert isinstance(model, AST)
    x = torch.randn(2, 64, 128)
    read: list[Tensor] = []
    for block in model.backbone.blocks:
        block.register_forward_hook(lambda *given: read.append(given[2]))
    with torch.no_grad():
        last, (image, _) = model.forward_intermediates(x)
    torch.testing.assert_close(last, model.backbone.norm(read[1]))
    torch.testing.assert_close(image, read[0][:, 2:].transpose(1, 2).reshape(2, 48, 8, 4))
    tokens = model.forward_intermediates(x, 1, output_fmt="NLC", intermediates_only=True)
    assert [t.shape for t in tokens] == [(2, 32, 48)]


@each_model
def test_export_and_compile(name: str) -> None:
    if name == "transformers":
        skip_before("torch", "2.8", "does not compile transformers' own forward")
    model, x = build(name)
    expected = model(x)
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), expected, rtol=1e-4, atol=1e-5)
    found = torch.compile(model, backend="eager", fullgraph=True)(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_func_grad_compiles() -> None:
    model, x = build("timm ViT")
    compiled = torch.compile(grad(loss(model, x)), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(trainable(model)), by_autograd(model, x), rtol=1e-4, atol=1e-4)


def test_merged_models_under_transforms() -> None:
    model, x = build("timm ViT")
    merged = merge(model)
    expected = merged(x)
    torch.testing.assert_close(vmap(lambda clip: merged(clip[None])[0])(x), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.jit.trace(merged, x)(x), expected, rtol=1e-4, atol=1e-5)
    with sdpa_kernel(SDPBackend.MATH):
        _, given = jvp(merged.double(), (x.double(),), (x.double(),))
        _, wanted = jvp(model.double(), (x.double(),), (x.double(),))
    torch.testing.assert_close(given, wanted)


# Parameters as vectors


@each_model
def test_parameters_to_a_vector_and_back(name: str) -> None:
    model, x = build(name)
    expected = model(x)
    vector = parameters_to_vector(model.parameters()).detach()
    vector_to_parameters(torch.zeros_like(vector), model.parameters())
    vector_to_parameters(vector, model.parameters())
    torch.testing.assert_close(model(x), expected)


@each_model
def test_lbfgs(name: str) -> None:
    model, x = build(name)
    optimiser = torch.optim.LBFGS([p for p in model.parameters() if p.requires_grad], lr=0.1, max_iter=3)
    losses: list[float] = []

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = model(x).square().sum()
        value.backward()
        losses.append(value.item())
        return value

    optimiser.step(closure)
    optimiser.step(closure)
    assert losses[-1] < losses[0]


@each_model
def test_prune(name: str) -> None:
    model, x = build(name)
    convolutions = [m for layer in model.modules() if isinstance(layer, LoAA) for m in (layer.down, layer.up)]
    prune.global_unstructured([(m, "weight") for m in convolutions], prune.L1Unstructured, amount=0.5)
    zeros = sum(int((m.weight == 0).sum()) for m in convolutions)
    assert zeros == round(0.5 * sum(m.weight.numel() for m in convolutions))
    model(x).sum().backward()
    pruned = model(x)
    for m in convolutions:
        prune.remove(m, "weight")
        prune.l1_unstructured(m, "weight", 0.1)
        prune.remove(m, "weight")
        prune.ln_structured(m, "weight", 1, 2, 0)
    assert (model(x) - pruned).abs().max() > 0


def test_parametrisations() -> None:
    model, x = build("AST")
    expected = model(x)
    for layer in [m for m in model.modules() if isinstance(m, LoAA)]:
        parametrizations.weight_norm(layer.down)
    torch.testing.assert_close(model(x), expected)
    model(x).sum().backward()


@each_model
def test_copies_and_state_dicts(name: str) -> None:
    model, x = build(name)
    expected = model(x)
    torch.testing.assert_close(copy.deepcopy(model)(x), expected)
    torch.testing.assert_close(torch.optim.swa_utils.AveragedModel(model)(x), expected)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other, _ = build(name)
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    other.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(other(x), expected)
