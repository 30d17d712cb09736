"""How gradients come about: the same bits twice, passed through where they can be, not computed where unwanted."""

import itertools
from typing import Any

import pytest
import torch
from kernel_cases import DEVICE, DTYPES, Case, draw, results
from torch.utils.checkpoint import checkpoint

from fastloaa import LoAA
from fastloaa.kernels import launchable
from fastloaa.ops.normed import NormedFrom, recompute


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_same_inputs_give_the_same_bits(dtype: torch.dtype) -> None:
    case = Case(8, 25, batch=2, dim=32, rank=36, bias=True, mask=True)
    inputs = case.inputs(dtype)
    first, second = results(case, inputs, "triton"), results(case, inputs, "triton")
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_summands_gradients_are_passed_through_not_copied() -> None:
    case = Case()
    inputs = case.inputs(torch.float32)
    out = case.call(inputs, "triton")
    grad = draw(tuple(out.shape), 9).float()
    d_block, d_skip = torch.autograd.grad(out, [inputs["block_out"], inputs["skip"]], grad)
    assert d_block.data_ptr() == grad.data_ptr() == d_skip.data_ptr()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_x_recomputed_is_x_kept(dtype: torch.dtype) -> None:
    """The same gradients, and of x nothing is kept."""
    case = Case(mask=True, bias=True)
    inputs = case.inputs(dtype)
    source = NormedFrom(*(draw(shape, 3) for shape in ((2, case.tokens, case.dim), (case.dim,), (case.dim,))), 1e-6)
    inputs["x"] = recompute(source, dtype).requires_grad_()
    kept = results(case, inputs, "triton")
    saved: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.data_ptr()) or t, lambda t: t):
        recomputed = results(case, inputs | {"normed_from": source}, "triton")
    assert source.residual.data_ptr() in saved
    assert inputs["x"].data_ptr() not in saved
    for name, tensor in kept.items():
        assert torch.equal(tensor, recomputed[name]), name


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The constants of every launch of the test, `kernel` among them."""
    seen: list[dict[str, Any]] = []
    run = launchable.Launch.run

    def recorded(launch: launchable.Launch) -> None:
        seen.append({"kernel": launch.kernel.fn.__name__, **launch.arguments})
        run(launch)

    monkeypatch.setattr(launchable.Launch, "run", recorded)
    return seen


FORWARD, INPUT_GRAD, WEIGHT_GRAD, WEIGHT_SUM = (
    f"loaa_{name}_kernel" for name in ("forward", "input_grad", "weight_grad", "weight_sum")
)


def test_one_launch_forward_and_three_backward(launches: list[dict[str, Any]]) -> None:
    case = Case(rank=36)
    results(case, case.inputs(torch.float32), "triton")
    assert [launch["kernel"] for launch in launches] == [FORWARD, INPUT_GRAD, WEIGHT_GRAD, WEIGHT_SUM]


@pytest.mark.parametrize("wanted", list(itertools.product([False, True], repeat=3)), ids=str)
def test_only_gradients_that_are_wanted(wanted: tuple[bool, bool, bool], launches: list[dict[str, Any]]) -> None:
    case = Case(summands=0)
    inputs = case.inputs(torch.float32)
    for tensor, want in zip(inputs.values(), wanted, strict=True):
        tensor.requires_grad_(want)
    out = case.call(inputs, "triton")
    assert launches.pop()["KEEP_PRE"] == any(wanted)
    assert out.requires_grad == any(wanted)
    if any(wanted):
        out.sum().backward()
    x, down, up = wanted
    for tensor, want in zip(inputs.values(), wanted, strict=True):
        assert (tensor.grad is not None) == want
    assert [launch["INPUT_GRAD"] for launch in launches if launch["kernel"] == INPUT_GRAD] == [x] * any(wanted)
    pairs = [(launch["DOWN"], launch["UP"]) for launch in launches if launch["kernel"] == WEIGHT_GRAD]
    assert pairs == [(down, up)] * (down or up)


def test_inference_keeps_nothing(launches: list[dict[str, Any]]) -> None:
    case = Case()
    inputs = case.inputs(torch.float32)
    with torch.no_grad():
        case.call(inputs, "triton")
    with torch.inference_mode():
        case.call(inputs, "triton")
    assert [launch["KEEP_PRE"] for launch in launches] == [False, False]


def test_a_frozen_adapter_beside_a_trained_block() -> None:
    """Only a summand wants a gradient: it is the incoming one, and no kernel runs backward."""
    case = Case(summands=1)
    inputs = {name: tensor.detach() for name, tensor in case.inputs(torch.float32).items()}
    inputs["block_out"].requires_grad_()
    case.call(inputs, "triton").sum().backward()
    assert inputs["block_out"].grad is not None
    assert torch.equal(inputs["block_out"].grad, torch.ones_like(inputs["block_out"]))


def test_one_adapter_twice_in_a_graph() -> None:
    fused, plain = (LoAA(16, 4, "freq", freq_bins=3, backend=name, device=DEVICE) for name in ("triton", "reference"))
    torch.nn.init.normal_(fused.up.weight, std=0.2)
    plain.load_state_dict(fused.state_dict())
    grads = []
    for module in (fused, plain):
        x = draw((2, 12, 16), 1).float().requires_grad_()
        module(module(x, x), x).square().sum().backward()
        grads.append([x.grad, *(weight.grad for weight in module.parameters())])
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing(reentrant: bool) -> None:
    layer = LoAA(16, 4, "time", freq_bins=3, bias=True, backend="triton", device=DEVICE)
    torch.nn.init.normal_(layer.up.weight)
    grads = []
    for call in (layer, lambda *tensors: checkpoint(layer, *tensors, use_reentrant=reentrant)):
        x, skip = (draw((2, 12, 16), seed).float().requires_grad_() for seed in (1, 2))
        layer.zero_grad()
        call(x, skip).square().sum().backward()
        grads.append([x.grad, skip.grad, *(weight.grad for weight in layer.parameters())])
    for kept, recomputed in zip(*grads, strict=True):
        assert torch.equal(kept, recomputed)


def test_gradients_of_gradients_are_a_clear_error() -> None:
    case = Case(summands=0)
    inputs = case.inputs(torch.float32)
    (d_x,) = torch.autograd.grad(case.call(inputs, "triton").sum(), [inputs["x"]], create_graph=True)
    with pytest.raises(RuntimeError, match="loaa_backward"):
        d_x.sum().backward()


def test_the_mask_gets_no_gradient_but_an_error() -> None:
    case = Case(mask=True)
    inputs = case.inputs(torch.float32)
    inputs["hidden_mask"].requires_grad_()
    with pytest.raises(RuntimeError, match=r'no gradient to hidden_mask; use backend="torch"'):
        case.call(inputs, "triton").sum().backward()
