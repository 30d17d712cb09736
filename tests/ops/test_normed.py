"""What a block and its adapter share: normed once, and not kept."""

import copy

import pytest
import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from fastloaa import LoAA, adapt
from fastloaa.backbones import AdaptedBlock, backbone_of
from fastloaa.backbones.timm_vit import TimmViT
from fastloaa.ops.normed import norm_once, recompute
from helpers.small import small_ast, wake_adapters

GRID = {"freq_bins": 8, "prefix_tokens": 2}
TOKENS = 2 + 8 * 8
PRECISIONS = [None, torch.bfloat16]


def precision(dtype: torch.dtype | None) -> torch.autocast:
    return torch.autocast("cpu", dtype, enabled=dtype is not None)


def gradients(loss: Tensor, model: nn.Module, x: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [x, *(p for p in model.parameters() if p.requires_grad)]))


@pytest.mark.parametrize("norm", [nn.LayerNorm(16, 1e-3), nn.LayerNorm(16, elementwise_affine=False)])
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_recomputed_is_what_was_normed(norm: nn.LayerNorm, dtype: torch.dtype | None) -> None:
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    x = 3 + torch.randn(2, 5, 16)
    with precision(dtype):
        normed, source = norm_once(norm, x)
    assert normed.dtype == (dtype or torch.float32)
    assert source is not None
    assert torch.equal(recompute(source, normed.dtype), normed)


def test_other_norms_are_kept() -> None:
    norm = nn.RMSNorm(16)
    normed, source = norm_once(norm, x := torch.randn(2, 5, 16))
    assert torch.equal(normed, norm(x))
    assert source is None


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_an_adapter_that_recomputes_its_input_has_the_same_gradients(backend: str, dtype: torch.dtype | None) -> None:
    layer = LoAA(16, 4, "time", bias=True, backend=backend, **GRID)
    nn.init.normal_(layer.up.weight)
    norm, x = nn.LayerNorm(16), torch.randn(2, TOKENS, 16, requires_grad=True)
    found = []
    for recomputes in (False, True):
        with precision(dtype):
            normed, source = norm_once(norm, x)
            out = layer(normed, normed, x, source if recomputes else None)
        found.append(gradients(out.square().sum(), layer, x))
    for kept, recomputed in zip(*found, strict=True):
        assert torch.equal(kept, recomputed)


def kept_bytes(block: nn.Module, dtype: torch.dtype | None) -> int:
    """What autograd keeps of the tokens for the backward pass of a block."""
    x = torch.randn(2, TOKENS, 768, requires_grad=True)
    storages = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.numel() % TOKENS == 0:  # no weight has a factor of 11
            storages[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), precision(dtype):
        block(x)
    return sum(tensor.untyped_storage().nbytes() for tensor in storages.values())


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_adapters_keep_a_twentieth_of_what_the_block_keeps(dtype: torch.dtype | None) -> None:
    block = Block(768, 12).requires_grad_(False)
    adapters = (LoAA(768, 36, kernel, backend="torch", **GRID) for kernel in ("time", "freq"))
    bare, adapted = (
        kept_bytes(each, dtype) for each in (block, AdaptedBlock(copy.deepcopy(block), TimmViT.parts, *adapters))
    )
    assert bare > 2 * TOKENS * 768 * 20  # of the block, 24 or 40 bytes a channel
    assert bare < adapted <= 1.05 * bare


def test_under_autocast_block_and_adapter_read_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapt(small_ast(), bottleneck=4)
    wake_adapters(model)
    read: list[Tensor] = []
    monkeypatch.setattr(LoAA, "forward", lambda self, x, out, skip, source: read.append(x) or skip + out)
    for block in backbone_of(model).blocks:
        for module in (block.attn, block.mlp):
            module.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    with precision(torch.bfloat16):
        model(torch.randn(2, 64, 128))
    assert len(read) == 2 * 2 * 2
    for by_block, by_adapter in zip(read[::2], read[1::2], strict=True):
        assert by_block is by_adapter
        assert by_block.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_compiled_gradients_are_those_of_the_eager_block(dtype: torch.dtype | None) -> None:
    """The residual stream reaches an adapter twice, and its input may reach it a third time."""
    torch._dynamo.reset()
    adapters = [LoAA(16, 4, kernel, backend="torch", **GRID) for kernel in ("time", "freq")]
    for adapter in adapters:
        nn.init.normal_(adapter.up.weight)
    block, x = AdaptedBlock(Block(16, 2), TimmViT.parts, *adapters), torch.randn(2, TOKENS, 16, requires_grad=True)
    twice = LoAA(16, 4, "time", backend="torch", **GRID)
    nn.init.normal_(twice.up.weight)

    def both(x: Tensor) -> Tensor:
        return twice(out := block(x), out, out).square().mean()

    model = nn.ModuleList([block, twice])
    found = []
    for run in (both, torch.compile(both, backend="aot_eager", fullgraph=True)):
        with precision(dtype):
            found.append(gradients(run(x), model, x))
    for eager, compiled in zip(*found, strict=True):
        assert (compiled - eager).norm() <= (1e-5 if dtype is None else 2e-2) * eager.norm()
