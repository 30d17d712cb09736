"""Losses against their definitions in float64."""

import pytest
import torch
from torch import Tensor

from fastloaa.training.loss import clip_losses


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(6, 4) * 3


@pytest.fixture
def targets() -> Tensor:
    return torch.softmax(torch.randn(6, 4), 1)  # as mixup makes them


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(logits: Tensor, targets: Tensor, smoothing: float) -> None:
    smooth = targets.double() * (1 - smoothing) + smoothing / 4
    expected = -(smooth * logits.double().softmax(1).log()).sum(1)
    found = clip_losses(logits, targets, "cross_entropy", smoothing)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_bce(logits: Tensor, targets: Tensor) -> None:
    p, t = logits.double().sigmoid(), targets.double()
    expected = -(t * p.log() + (1 - t) * (1 - p).log()).mean(1)
    torch.testing.assert_close(clip_losses(logits, targets, "bce").double(), expected, rtol=1e-5, atol=1e-6)


def test_half_precision_logits_give_float32(logits: Tensor, targets: Tensor) -> None:
    assert clip_losses(logits.bfloat16(), targets, "cross_entropy").dtype == torch.float32
