"""Randomness as a function of seed and position."""

from itertools import chain

import torch
from hypothesis import given
from hypothesis import strategies as st

from fastloaa.training.randomness import EpochBatches, seed_step


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
