"""Windows of several requests share runs: each has its own answer, none waits for ever, none is lost."""

import threading
from concurrent.futures import CancelledError

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastloaa.export.serving.batching import Batcher, ClosedError

LONG = 3600.0  # seconds; a test that waits so long fails by its own limit


class Recorder:
    """A model that answers the sum and the length of each row; the first run waits until it is let go."""

    def __init__(self, held: bool = False) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.entered, self.go = threading.Event(), threading.Event()
        if not held:
            self.go.set()

    def __call__(self, rows: Tensor) -> NDArray[np.float32]:
        self.shapes.append(tuple(rows.shape))
        self.entered.set()
        assert self.go.wait(60)
        return np.stack([rows.sum(1).numpy(), np.full(len(rows), rows.shape[1], np.float32)], 1)


def window(value: float, length: int = 3) -> Tensor:
    return torch.full((length,), value)


def test_what_comes_during_a_run_shares_the_next() -> None:
    run = Recorder(held=True)
    batcher = Batcher(run, 4, 0)
    first = batcher.submit(window(1))
    assert run.entered.wait(60)
    others = [batcher.submit(window(value)) for value in range(6)]
    run.go.set()
    batcher.close()
    assert run.shapes == [(1, 3), (4, 3), (2, 3)]
    assert first.result().tolist() == [3, 3]
    assert [other.result().tolist() for other in others] == [[3 * value, 3] for value in range(6)]


def test_a_full_run_does_not_wait() -> None:
    run = Recorder()
    batcher = Batcher(run, 2, LONG)
    answers = [batcher.submit(window(value)) for value in (1, 2)]
    assert [answer.result(60).tolist() for answer in answers] == [[3, 3], [6, 3]]
    assert run.shapes == [(2, 3)]
    batcher.close()


def test_a_lone_window_is_run_when_it_has_waited() -> None:
    batcher = Batcher(Recorder(), 8, 0.01)
    assert batcher.submit(window(1)).result(60).tolist() == [3, 3]
    batcher.close()


def test_lengths_do_not_mix_and_the_oldest_goes_first() -> None:
    run = Recorder(held=True)
    batcher = Batcher(run, 2, 0)
    first = batcher.submit(window(0))
    assert run.entered.wait(60)
    answers = [batcher.submit(window(1, length)) for length in (5, 4, 4, 5, 5, 7)]
    run.go.set()
    batcher.close()
    assert run.shapes == [(1, 3), (2, 5), (2, 4), (1, 5), (1, 7)]
    assert first.done()
    assert [answer.result().tolist() for answer in answers] == [[n, n] for n in (5, 4, 4, 5, 5, 7)]


def test_a_window_that_nobody_waits_for_is_not_run() -> None:
    run = Recorder(held=True)
    batcher = Batcher(run, 8, 0)
    batcher.submit(window(1))
    assert run.entered.wait(60)
    gone, alone = batcher.submit(window(2, 5)), batcher.submit(window(3, 6))
    assert gone.cancel()
    run.go.set()
    batcher.close()
    assert run.shapes == [(1, 3), (1, 6)]
    assert alone.result().tolist() == [18, 6]
    with pytest.raises(CancelledError):
        gone.result()


def test_a_run_that_fails_is_told_to_all_of_it_and_the_next_is_answered() -> None:
    def run(rows: Tensor) -> NDArray[np.float32]:
        if rows[0, 0] < 0:
            raise RuntimeError("no memory")
        return rows.numpy()[: None if rows[0, 0] else 1]  # a model that answers for one alone, whatever it is given

    batcher = Batcher(run, 2, LONG)
    failed = [batcher.submit(window(-1)) for _ in range(2)]
    for answer in failed:
        with pytest.raises(RuntimeError, match="no memory"):
            answer.result(60)
    for answer in [batcher.submit(window(0)) for _ in range(2)]:
        with pytest.raises(ValueError, match="shorter"):
            answer.result(60)
    good = [batcher.submit(window(value)) for value in (1, 2)]
    assert [answer.result(60).tolist() for answer in good] == [[1, 1, 1], [2, 2, 2]]
    assert batcher.alive
    batcher.close()


def test_closing_answers_what_waits_and_takes_no_more() -> None:
    told: list[int] = []
    batcher = Batcher(Recorder(), 8, LONG, lambda windows, seconds: told.append(windows))
    answers = [batcher.submit(window(value)) for value in range(3)]
    batcher.close()
    assert [answer.result(0).tolist() for answer in answers] == [[0, 3], [3, 3], [6, 3]]
    assert sum(told) == 3
    assert not batcher.alive
    with pytest.raises(ClosedError):
        batcher.submit(window(1))
