"""The learning rate against PyTorch's own schedulers and by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from fastloaa.training.schedule import learning_rate


@given(warmup=st.integers(2, 20), rest=st.integers(1, 40), lr=st.floats(1e-5, 10), share=st.floats(0, 1))
def test_equals_torch_schedulers(warmup: int, rest: int, lr: float, share: float) -> None:
    min_lr = lr * share
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr)
    rising = LinearLR(optimiser, 1 / warmup, total_iters=warmup - 1)
    falling = CosineAnnealingLR(optimiser, rest, min_lr)
    scheduler = SequentialLR(optimiser, [rising, falling], [warmup])
    for step in range(warmup + rest):
        expected = optimiser.param_groups[0]["lr"]
        assert learning_rate(step, warmup + rest, warmup, lr, min_lr) == pytest.approx(expected, rel=1e-9)
        optimiser.step()
        scheduler.step()


def test_by_hand() -> None:
    assert [learning_rate(step, 8, 4, 1.0) for step in range(8)] == pytest.approx(
        [0.25, 0.5, 0.75, 1.0, 1.0, (1 + 2**-0.5) / 2, 0.5, (1 - 2**-0.5) / 2]
    )
    assert learning_rate(0, 5, 0, 1.0) == 1.0
    assert learning_rate(2, 3, 3, 1.0) == 1.0  # all of it warm-up
