"""The learning rate against PyTorch's own schedulers and by hand."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, MultiStepLR, SequentialLR

from fastloaa.training import OptionError
from fastloaa.training.schedule import Schedule, ScheduleName, build_schedule, learning_rate


def rates(schedule: Schedule, epochs: int, steps_per_epoch: int, **options: Any) -> list[float]:
    """Of all steps of a run."""
    return [
        learning_rate(schedule, step, epochs=epochs, steps_per_epoch=steps_per_epoch, **options)
        for step in range(epochs * steps_per_epoch)
    ]


@given(warmup=st.integers(2, 20), rest=st.integers(1, 40), lr=st.floats(1e-5, 10), share=st.floats(0, 1))
def test_cosine_equals_torch_schedulers(warmup: int, rest: int, lr: float, share: float) -> None:
    min_lr = lr * share
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr)
    rising = LinearLR(optimiser, 1 / warmup, total_iters=warmup - 1)
    falling = CosineAnnealingLR(optimiser, rest, min_lr)
    scheduler = SequentialLR(optimiser, [rising, falling], [warmup])
    cosine = build_schedule("cosine", {"min_lr": min_lr})
    for found in rates(cosine, warmup + rest, 1, lr=lr, warmup_steps=warmup):
        assert found == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-9)
        optimiser.step()
        scheduler.step()


def test_exponential_is_what_ast_gives_torch() -> None:
    """AST's run.py: MultiStepLR(optimizer, list(range(5, 1000, 1)), gamma=0.85), a step of it after each epoch."""
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 2.5e-4)
    scheduler = MultiStepLR(optimiser, list(range(5, 1000, 1)), gamma=0.85)
    found = rates(build_schedule("exponential", {"factor": 0.85, "from_epoch": 5}), 30, 3, lr=2.5e-4)
    for epoch in range(30):
        assert found[3 * epoch : 3 * epoch + 3] == pytest.approx([optimiser.param_groups[0]["lr"]] * 3, rel=1e-9)
        optimiser.step()
        scheduler.step()


def test_steps_are_those_of_epic_sounds() -> None:
    """1, 0.05 and 0.01 from epochs 0, 10 and 20, after two epochs of warm-up from 1e-6; four steps an epoch."""
    schedule = build_schedule("steps", {"epochs": [10, 20], "factors": [0.05, 0.01]})
    found = rates(schedule, 30, 4, lr=1e-4, warmup_steps=8, warmup_lr=1e-6)
    assert found[:8] == pytest.approx([1e-6 + 99e-6 * step / 8 for step in range(1, 9)])
    assert found[8:40] == [1e-4] * 32
    assert found[40:80] == pytest.approx([5e-6] * 40)
    assert found[80:] == pytest.approx([1e-6] * 40)


def test_cosine_by_hand() -> None:
    cosine = build_schedule("cosine", {})
    assert rates(cosine, 2, 4, lr=1.0, warmup_steps=4) == pytest.approx(
        [0.25, 0.5, 0.75, 1.0, 1.0, (1 + 2**-0.5) / 2, 0.5, (1 - 2**-0.5) / 2]
    )
    assert rates(cosine, 1, 5, lr=1.0)[0] == 1.0
    assert rates(cosine, 1, 3, lr=1.0, warmup_steps=3)[2] == 1.0  # all of it warm-up


def test_constant_and_a_warm_up_that_ends_beyond_a_step() -> None:
    assert rates(build_schedule("constant", {}), 2, 2, lr=0.5) == [0.5] * 4
    halved = build_schedule("steps", {"epochs": [1], "factors": [0.5]})
    assert rates(halved, 3, 2, lr=1.0, warmup_steps=4) == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5, 0.5])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("constant", {"min_lr": 0.1}, "unknown constant option 'min_lr'; there are none"),
        ("cosine", {"min_lr": -1}, "cosine: min_lr is at least 0, got -1.0"),
        ("exponential", {"factor": 1.5}, "factor is above 0 and at most 1, from_epoch at least 0; got 1.5 and 5"),
        ("exponential", {"from_epoch": -1}, "got 0.85 and -1"),
        ("steps", {"epochs": [5]}, "one for each epoch; got [5] and [0.05, 0.01]"),
        ("steps", {"epochs": [20, 10]}, "epochs rise and factors are above 0"),
        ("steps", {"factors": [0.1, 0]}, "got [10, 20] and [0.1, 0.0]"),
        ("steps", {"epochs": 10}, "epochs is a list, each an integer, got 10"),
    ],
)
def test_refusals(name: ScheduleName, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        build_schedule(name, options)
    assert message in str(caught.value)
