"""What a call may be given: strides, biases, masks, scales, activations, unlike dtypes, batches of any size."""

from collections.abc import Callable

import pytest
import torch
from kernel_cases import DEVICE, DTYPES, Case, check, draw, relative_error, scattered
from torch import Tensor

from fastloaa import LoAA
from fastloaa.ops.activations import ACTIVATIONS

HALF = DTYPES[-1]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("summands", [0, 1, 2])
@pytest.mark.parametrize("kernel", [(1, 3), (3, 1)], ids=str)
def test_strided_inputs(kernel: tuple[int, int], summands: int, dtype: torch.dtype) -> None:
    check(Case(kernel=kernel, summands=summands, strided=True), dtype)


INCOMING: dict[str, Callable[[Tensor], Tensor]] = {
    "expanded from one number": lambda grad: grad[:1, :1, :1].expand_as(grad),
    "expanded over the batch": lambda grad: grad[:1].expand_as(grad),
    "strided": scattered,
    "channels first": lambda grad: grad.transpose(1, 2).contiguous().transpose(1, 2),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("incoming", INCOMING)
def test_strided_incoming_gradients(incoming: str, dtype: torch.dtype) -> None:
    check(Case(bias=True), dtype, INCOMING[incoming])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_expanded_summands(dtype: torch.dtype) -> None:
    """A position embedding is one clip for all of the batch."""
    inputs = Case().inputs(dtype)
    one = inputs["skip"].detach()[:1]
    expanded = Case().call(inputs | {"skip": one.expand_as(inputs["skip"])}, "triton")
    assert torch.equal(expanded, Case().call(inputs | {"skip": one.repeat(2, 1, 1)}, "triton"))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation: str, dtype: torch.dtype) -> None:
    # A bias has few gradients: enough of them that luck of the formulation they are compared with averages out.
    check(Case(activation=activation, scale=0.7, bias=True, rank=32, dim=32, batch=4), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("kernel", [(1, 3), (1, 1)], ids=str)
def test_biases_and_masks(kernel: tuple[int, int], mask: bool, bias: bool, dtype: torch.dtype) -> None:
    check(Case(kernel=kernel, mask=mask, bias=bias, scale=-2.0, prefix=3), dtype)


def test_masks_and_biases_with_strides() -> None:
    case = Case(mask=True, bias=True)
    inputs = {name: tensor.detach() for name, tensor in case.inputs(torch.float32).items()}
    expected = case.call(inputs, "triton")
    for name in ("hidden_mask", "down_bias", "up_bias"):
        spread = torch.stack((inputs[name], inputs[name] * torch.nan), -1)[..., 0]
        assert not spread.is_contiguous()
        assert torch.equal(case.call(inputs | {name: spread}, "triton"), expected), name


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda weight: weight.contiguous(),
    "channels last": lambda weight: weight.contiguous(memory_format=torch.channels_last),
    "strided": lambda weight: torch.stack((weight, weight * torch.nan), -1)[..., 0],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_in_any_layout(layout: str) -> None:
    case = Case(kernel=(3, 1), rank=6)
    inputs = {name: tensor.detach() for name, tensor in case.inputs(torch.float32).items()}
    weights = {name: LAYOUTS[layout](inputs[name]) for name in ("down_weight", "up_weight")}
    torch.testing.assert_close(case.call(inputs | weights, "triton"), case.call(inputs, "reference"))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_batches(batch: int) -> None:
    check(Case(batch=batch, prefix=2), torch.float32)
    check(Case(batch=batch, prefix=2), HALF)


def test_empty_batch() -> None:
    case = Case(batch=0, bias=True)
    inputs = case.inputs(torch.float32)
    out = case.call(inputs, "triton")
    assert out.shape == (0, case.tokens, case.dim)
    out.sum().backward()
    for name, tensor in inputs.items():
        assert tensor.grad is not None, name
        assert tensor.grad.shape == tensor.shape
        assert not tensor.grad.any()


@pytest.mark.parametrize("block", [torch.float32, HALF])
@pytest.mark.parametrize("skip", [torch.float32, HALF])
def test_the_result_has_the_dtype_of_the_plain_sum(block: torch.dtype, skip: torch.dtype) -> None:
    inputs = Case().inputs(HALF, block_out=block, skip=skip)
    out = Case().call(inputs, "triton")
    assert out.dtype == torch.promote_types(block, skip)
    check(Case(), HALF, block_out=block, skip=skip)


@pytest.mark.parametrize("summands", [0, 2])
def test_autocast(summands: int) -> None:
    """As in training: parameters and the residual stream in float32, products in a 16-bit dtype."""
    case = Case(summands=summands, bias=True)
    inputs = case.inputs(torch.float32)
    with torch.autocast(DEVICE, HALF):
        out = case.call(inputs, "triton")
    assert out.dtype == (torch.float32 if summands else HALF)
    grad = draw(tuple(out.shape), 9).to(out.dtype)
    actual = dict(zip(inputs, torch.autograd.grad(out, list(inputs.values()), grad), strict=True))
    exact = {name: tensor.detach().double().requires_grad_() for name, tensor in inputs.items()}
    wanted = case.call(exact, "reference")
    expected = dict(zip(inputs, torch.autograd.grad(wanted, list(exact.values()), grad.double()), strict=True))
    bound = 8 * torch.finfo(HALF).eps / 2  # the weights are rounded as well
    assert relative_error(out, wanted) < bound
    for name, tensor in inputs.items():
        assert actual[name].dtype == tensor.dtype
        assert relative_error(actual[name], expected[name]) < bound, name


def test_unlike_dtypes_without_autocast_are_an_error() -> None:
    inputs = Case().inputs(HALF, x=torch.float32)
    with pytest.raises(ValueError, match=r"x is torch.float32 and the adapter's weights are"):
        Case().call(inputs, "triton")


@pytest.mark.parametrize("order", ["freq", "time"])
def test_the_module(order: str) -> None:
    torch.manual_seed(1)
    options = {"freq_bins": 3, "prefix_tokens": 2, "token_order": order, "bias": True, "scale": 0.5, "device": DEVICE}
    fused, plain = (LoAA(32, 6, "time", backend=backend, **options) for backend in ("triton", "reference"))
    torch.nn.init.normal_(fused.up.weight, std=0.2)
    plain.load_state_dict(fused.state_dict())
    x, block_out, skip = (draw((2, 14, 32), seed).float().requires_grad_() for seed in range(3))
    for module in (fused, plain):
        module(x, block_out, skip).square().sum().backward()
    torch.testing.assert_close(fused(x), plain(x))
    assert str(fused.explain(x)) == "triton: asked for"
    for (name, ours), theirs in zip(fused.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_dropout_is_the_mask() -> None:
    """The same seed drops the same hidden activations in the fused and in the plain form."""
    layer = LoAA(32, 6, "time", freq_bins=3, dropout=0.5, backend="triton", device=DEVICE)
    torch.nn.init.normal_(layer.up.weight)
    x = draw((2, 12, 32), 1).float()
    outs = []
    for backend in ("triton", "reference", "triton"):
        layer.backend = backend
        if len(outs) < 2:
            torch.manual_seed(3)
        outs.append(layer(x))
    torch.testing.assert_close(outs[0], outs[1])
    assert not torch.allclose(outs[0], outs[2])


def test_inputs_are_left_alone() -> None:
    case = Case(mask=True, bias=True)
    inputs = case.inputs(torch.float32)
    before = {name: tensor.detach().clone() for name, tensor in inputs.items()}
    case.call(inputs, "triton").sum().backward()
    for name, tensor in inputs.items():
        assert torch.equal(tensor, before[name]), name
