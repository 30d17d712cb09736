"""Randomness as a function of seed and position."""

from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastloaa.data import Clip, ClipList
from fastloaa.training.randomness import EpochBatches, class_balance, seed_step


@given(length=st.integers(1, 50), batch_size=st.integers(1, 12), seed=st.integers(0, 2**40), data=st.data())
def test_an_epoch_is_a_permutation_that_can_start_anywhere(
    length: int, batch_size: int, seed: int, data: st.DataObject
) -> None:
    batches = EpochBatches(length, batch_size, seed)
    batches.start_at(3, 0)
    whole = list(batches)
    assert sorted(chain.from_iterable(whole)) == list(range(length))
    assert [len(batch) for batch in whole[:-1]] == [batch_size] * (len(whole) - 1)
    assert len(whole) == len(batches) == batches.per_epoch
    first = data.draw(st.integers(0, len(whole)))
    again = EpochBatches(length, batch_size, seed)
    again.start_at(3, first)
    assert list(again) == whole[first:]
    assert len(again) == len(whole) - first


@pytest.mark.parametrize("processes", [1, 3])
def test_windows_are_drawn_anew_each_epoch_and_can_start_anywhere(processes: int) -> None:
    def epoch(number: int, first: int = 0, windows: bool = True) -> list[Any]:
        batches = [EpochBatches(20, 6, 5, index, processes, windows) for index in range(processes)]
        for each in batches:
            each.start_at(number, first)
        return list(chain.from_iterable(chain.from_iterable(zip(*batches, strict=True))))

    whole = epoch(2)
    assert [index for index, _ in whole] == epoch(2, windows=False)  # the order is as without
    assert all(0 <= place < 1 for _, place in whole)
    assert len({place for _, place in whole}) == 20
    assert epoch(2, first=2) == whole[12:]
    assert {place for _, place in epoch(3)}.isdisjoint({place for _, place in whole})


def test_order_depends_on_seed_and_epoch_alone() -> None:
    orders = set()
    for seed in range(3):
        for epoch in range(3):
            batches = EpochBatches(20, 20, seed)
            batches.start_at(epoch, 0)
            torch.rand(seed + 1)  # the global generator has no part in it
            orders.add(tuple(next(iter(batches))))
    assert len(orders) == 9


def test_steps_are_seeded_apart() -> None:
    def draw(seed: int, step: int) -> float:
        seed_step(seed, step)
        return torch.rand(()).item()

    draws = {(seed, step): draw(seed, step) for seed in range(5) for step in range(200)}
    assert len(set(draws.values())) > 990  # of 1000; float32 has room for a coincidence
    assert draw(3, 150) == draws[3, 150]


def test_clips_of_rare_classes_weigh_more() -> None:
    """As AST's script says it, clip by clip."""
    labels = [(0,), (0, 1), (0, 2), (0,), (2, 1)]
    counts = Counter(chain.from_iterable(labels))
    expected = [sum(1000 / (counts[label] + 0.01) for label in each) for each in labels]
    clips = ClipList.of(Clip(Path(f"{index}.wav"), each) for index, each in enumerate(labels))
    assert class_balance(clips, classes=4).tolist() == pytest.approx(expected, rel=1e-12)


def test_clips_are_drawn_by_their_weights() -> None:
    def epoch(number: int, index: int = 0, processes: int = 1, first: int = 0) -> list[list[int]]:
        weights = torch.tensor([0.0, 1.0, 3.0, 0.0] * 500)
        batches = EpochBatches(2000, 64, 5, index, processes, weights=weights)
        batches.start_at(number, first)
        return list(batches)

    whole = epoch(2)
    drawn = Counter(index % 4 for index in chain.from_iterable(whole))
    assert drawn.total() == 2000
    assert drawn.keys() == {1, 2}
    assert drawn[2] / 2000 == pytest.approx(0.75, abs=0.04)  # four standard deviations
    assert epoch(2, first=7) == whole[7:]
    assert epoch(3) != whole
    shares = zip(epoch(2, 0, 3), epoch(2, 1, 3), epoch(2, 2, 3), strict=True)
    assert [list(chain.from_iterable(share)) for share in shares] == whole


def test_a_clip_that_is_drawn_several_times_has_a_window_each_time() -> None:
    """In an epoch that the weights make of two clips."""
    weights = torch.tensor([0.0, 1.0, 1.0, 0.0] * 10)
    batches = list(EpochBatches(40, 7, 5, windows=True, weights=weights))
    starts = [start for batch in batches for _, start in batch]
    assert len(set(starts)) == len(starts) == 40
    again = EpochBatches(40, 7, 5, windows=True, weights=weights)
    again.start_at(0, 3)
    assert list(again) == batches[3:]
