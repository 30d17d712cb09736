"""PyTorch's own tools do with an adapted model what they do with the plain one.

Transformers' AST cannot be traced symbolically, and has no `forward_intermediates`.
"""

import copy
import io
from collections.abc import Callable
from importlib.metadata import version

import pytest
import torch
from packaging.version import Version
from timm.models._features_fx import GraphExtractNet
from torch import Tensor, nn
from torch.func import jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parameters_to_vector, parametrizations, prune, vector_to_parameters
from torchvision.models.feature_extraction import create_feature_extractor

from fastloaa import AST, LoAA, adapt
from fastloaa.audio import EpicSoundsFrontEnd, FrontEnd, LogMel
from fastloaa.export import merge
from helpers.adapted_models import build, each_model
from helpers.small import small_ast
from helpers.versions import skip_before

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
