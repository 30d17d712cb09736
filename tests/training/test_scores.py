"""Metrics against their definitions, clip by clip."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastloaa.training.recipe import Loss
from fastloaa.training.scores import score


def average_precision(scores: list[float], positive: list[bool]) -> float | None:
    """Mean over the positives of the precision at their rank (scores without ties)."""
    ranking = [is_positive for _, is_positive in sorted(zip(scores, positive, strict=True), reverse=True)]
    found = [sum(ranking[: rank + 1]) / (rank + 1) for rank, is_positive in enumerate(ranking) if is_positive]
    return sum(found) / len(found) if found else None


@given(seed=st.integers(0, 2**32), clips=st.integers(1, 12), classes=st.integers(2, 6))
@pytest.mark.parametrize("loss", ["bce", "cross_entropy"])
def test_average_precision(loss: Loss, seed: int, clips: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(clips, classes, generator=generator)
    targets = (torch.rand(clips, classes, generator=generator) < 0.3).float()
    targets[0, seed % classes] = 1
    found = score(logits, targets, torch.arange(clips), loss=loss, multi_label=True)
    ranked = logits.double() if loss == "bce" else logits.double().log_softmax(1)  # ranked across clips
    expected = [average_precision(ranked[:, i].tolist(), (targets[:, i] > 0).tolist()) for i in range(classes)]
    assert [value is None for value in found.average_precision] == [value is None for value in expected]
    known = [value for value in expected if value is not None]
    assert [value for value in found.average_precision if value is not None] == pytest.approx(known, abs=1e-6)
    assert found.mAP == pytest.approx(sum(known) / len(known), abs=1e-6)
    assert found.positives == targets.sum(0).tolist()
    assert (found.clips, found.loss) == (clips, (clips - 1) / 2)
    assert (found.accuracy, found.macro_accuracy, found.macro_f1, found.confusion) == (None, None, None, None)


def test_one_label_a_clip() -> None:
    """Three clips of a, of which two are recognised; one of b, taken for a; none of c; one of d, taken for c."""
    labels, answers = torch.tensor([0, 0, 0, 1, 3]), torch.tensor([0, 0, 1, 0, 2])
    one_hot = torch.nn.functional.one_hot(labels, 4).float()
    logits = torch.nn.functional.one_hot(answers, 4).float() * 3
    found = score(logits, one_hot, torch.zeros(5), loss="cross_entropy", multi_label=False, broken=("x: broken",))
    assert found.confusion == [[2, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]
    assert found.accuracy == 2 / 5
    assert found.macro_accuracy == pytest.approx((2 / 3 + 0 + 0) / 3)  # of a, b and d
    assert found.macro_f1 == pytest.approx((2 / 3 + 0 + 0 + 0) / 4)  # c was answered
    assert found.broken == ("x: broken",)
    assert found.summary().keys() == {"clips", "accuracy", "macro_accuracy", "macro_f1", "mAP", "loss"}
    table = found.per_class(["a", "b", "c", "d"])
    assert [row.pop("average_precision") is None for row in table.values()] == [False, False, True, False]
    assert table == {
        "a": {"clips": 3, "accuracy": 2 / 3, "taken_for": "b"},
        "b": {"clips": 1, "accuracy": 0.0, "taken_for": "a"},
        "c": {"clips": 0, "accuracy": None, "taken_for": None},
        "d": {"clips": 1, "accuracy": 0.0, "taken_for": "c"},
    }


def test_per_class_with_several_labels() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 3.0, 1.0]])
    targets = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    found = score(logits, targets, torch.zeros(3), loss="bce", multi_label=True)
    assert found.per_class(["a", "b", "c"]) == {
        "a": {"clips": 2, "average_precision": 1.0},
        "b": {"clips": 2, "average_precision": pytest.approx((1 + 2 / 3) / 2)},
        "c": {"clips": 0, "average_precision": None},
    }
    assert math.isclose(found.mAP, (1 + 5 / 6) / 2, abs_tol=1e-6)
