"""Repeated calls, whose launches are remembered: with other numbers, other memory, other layouts."""

from typing import Any

import pytest
import torch
from kernel_cases import DEVICE, Case, check, draw, exact, relative_error, results
from torch import Tensor

from fastloaa.kernels import launchable, tile_launch
from fastloaa.kernels.remembered import forget

BOUND = 1e-5


def assert_right(case: Case, inputs: dict[str, Tensor], grad: Tensor | None = None) -> None:
    """Output and gradients against the reference in float64."""
    expected = results(case, exact(inputs), "reference", grad)
    for name, tensor in results(case, inputs, "triton", grad).items():
        assert relative_error(tensor, expected[name]) < BOUND, name


def other(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same layouts with other numbers in other memory."""
    return {name: (t.detach().flip(0) * 1.5).requires_grad_(t.requires_grad) for name, t in inputs.items()}


@pytest.mark.parametrize("options", [{}, {"bias": True, "mask": True, "scale": 0.5}, {"summands": 0, "kernel": (1, 1)}])
def test_other_numbers_in_other_memory(options: dict[str, Any]) -> None:
    case = Case(**options)
    inputs = case.inputs(torch.float32)
    for each in (inputs, other(inputs), inputs):
        assert_right(case, each)


def test_operands_that_were_one_tensor_may_be_two() -> None:
    """block_out and skip in the same memory at first, then not."""
    case = Case()
    inputs = case.inputs(torch.float32)
    forget()
    shared = inputs["skip"].detach()
    case.call(inputs | {"block_out": shared, "skip": shared}, "triton")
    assert_right(case, inputs)


def test_layouts_are_told_apart() -> None:
    case = Case(kernel=(3, 1))
    inputs = case.inputs(torch.float32)
    last = torch.channels_last
    for layout in (torch.contiguous_format, last, torch.contiguous_format):
        changed = {
            name: inputs[name].detach().contiguous(memory_format=layout).requires_grad_()
            for name in ("down_weight", "up_weight")
        }
        assert_right(case, inputs | changed)
    wide = draw((case.batch, case.dim, case.tokens), 9).float()
    for grad in (wide.transpose(1, 2), wide.transpose(1, 2).contiguous(), wide.transpose(1, 2)):
        assert_right(case, inputs, grad)


def test_other_settings_are_told_apart() -> None:
    for case in (Case(), Case(activation="silu"), Case(scale=2.0), Case(order="time"), Case(freq=5, time=3), Case()):
        check(case, torch.float32)


def test_addresses_that_are_not_aligned() -> None:
    """A view that begins between two multiples of 16 bytes has the strides of one that does not."""
    case = Case()
    inputs = case.inputs(torch.float32)
    shifted = torch.empty(inputs["x"].numel() + 1, device=DEVICE)[1:].view_as(inputs["x"])
    shifted.copy_(inputs["x"].detach()).requires_grad_()
    assert shifted.data_ptr() % 16
    assert shifted.stride() == inputs["x"].stride()
    for x in (inputs["x"], shifted, inputs["x"]):
        assert_right(case, inputs | {"x": x})


def test_what_is_saved_may_come_back_in_another_layout() -> None:
    """Offloaded to the host and fetched back, channels_last weights are contiguous."""
    case = Case(kernel=(3, 1))
    inputs = case.inputs(torch.float32)
    for name in ("down_weight", "up_weight"):
        inputs[name] = inputs[name].detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    expected = results(case, inputs, "triton")
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.contiguous(), lambda t: t):
        offloaded = results(case, inputs, "triton")
    for name, tensor in expected.items():
        assert relative_error(offloaded[name], tensor.double()) < BOUND, name


def test_the_switch_for_tf32_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    run = launchable.Launch.run
    monkeypatch.setattr(launchable.Launch, "run", lambda self: (seen.append(self.arguments["PRECISION"]), run(self))[1])
    case = Case()
    inputs = {name: tensor.detach() for name, tensor in case.inputs(torch.float32).items()}
    switch = torch.backends.cuda.matmul
    new = hasattr(switch, "fp32_precision")  # since torch 2.9
    name, exact, fast = ("fp32_precision", "ieee", "tf32") if new else ("allow_tf32", False, True)
    before = getattr(switch, name)
    try:
        for precision in (exact, fast, exact):
            setattr(switch, name, precision)
            case.call(inputs, "triton")
            case.call(inputs, "triton")
    finally:
        setattr(switch, name, before)
    assert seen == ["tf32x3"] * 2 + ["tf32"] * 2 + ["tf32x3"] * 2


def test_a_gradient_that_is_expanded_is_copied_and_remembered_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a sum over the output sends back: one number, expanded to all."""
    worked_out: list[str] = []
    work_out = tile_launch.input_grad
    monkeypatch.setattr(tile_launch, "input_grad", lambda *given: (worked_out.append("once"), work_out(*given))[1])
    case = Case()
    inputs = case.inputs(torch.float32)
    grad = torch.ones((), device=DEVICE).expand(case.batch, case.tokens, case.dim)
    forget()
    for each in (inputs, other(inputs), inputs):
        assert_right(case, each, grad)
    assert worked_out == ["once"]


def test_whatever_follows_inference_still_gets_gradients() -> None:
    case = Case()
    inputs = case.inputs(torch.float32)
    with torch.no_grad():
        case.call(inputs, "triton")
    assert_right(case, inputs)
    with torch.inference_mode():
        case.call(inputs, "triton")
    assert_right(case, inputs)
