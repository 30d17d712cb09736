"""Windows of several requests in one run of a model."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import monotonic, perf_counter
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from fastloaa.errors import FastloaaError

Row = NDArray[Any]
"""Probabilities of a window, float32 `[classes]`."""


class ClosedError(FastloaaError, RuntimeError):
    """Nothing more is answered: the batcher was closed."""


@dataclass(eq=False)
class _Waiting:
    waveform: Tensor
    latest: float  # when it runs, alone or not
    answer: "Future[Row]" = field(default_factory=Future)


class Batcher:
    """Runs windows that come together in one batch, in a thread of its own; used from any thread.

    Windows of one length share a run, the oldest first. A run begins as soon as it is full, or when its oldest window
    has waited long enough; what comes while another run is under way waits for that anyway.

    Args:
        run: float32 `[batch, samples]` -> float32 `[batch, classes]`.
        size: most windows in a run.
        delay: how long a window waits for others, in seconds; 0: not at all.
        told: called after each run with the number of its windows and its seconds.
    """

    def __init__(
        self,
        run: Callable[[Tensor], Row],
        size: int,
        delay: float,
        told: Callable[[int, float], None] = lambda windows, seconds: None,
    ) -> None:
        self._run, self._size, self._delay, self._told = run, size, delay, told
        self._changed = threading.Condition()
        self._waiting: dict[int, deque[_Waiting]] = {}  # by length
        self._closed = False
        self._thread = threading.Thread(target=self._answer, name="batch", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether what is submitted is answered."""
        return self._thread.is_alive() and not self._closed

    def submit(self, waveform: Tensor) -> "Future[Row]":
        """The probabilities of a window, float32 `[samples]`, when they are there; cancelled, it is not run.

        Raises:
            ClosedError: after `close`.
        """
        one = _Waiting(waveform, monotonic() + self._delay)
        with self._changed:
            if self._closed:
                raise ClosedError("the batcher is closed; nothing more is answered")
            self._waiting.setdefault(len(waveform), deque()).append(one)
            self._changed.notify()
        return one.answer

    def close(self) -> None:
        """Answer what waits, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _answer(self) -> None:
        while (batch := self._next()) is not None:
            live = [one for one in batch if one.answer.set_running_or_notify_cancel()]
            if live:
                self._answer_batch(live)

    def _answer_batch(self, batch: list[_Waiting]) -> None:
        since = perf_counter()
        try:
            rows = self._run(torch.stack([one.waveform for one in batch]))
            answers = list(zip(batch, rows, strict=True))
        except BaseException as error:  # whatever it is, those who wait must hear of it
            for one in batch:
                one.answer.set_exception(error)
            return
        self._told(len(batch), perf_counter() - since)  # before the answers, so that whoever has one finds it counted
        for one, row in answers:
            one.answer.set_result(row)

    def _next(self) -> list[_Waiting] | None:
        """The windows of the next run, when it is time for it; None: there is none any more."""
        with self._changed:
            while True:
                if not self._waiting:
                    if self._closed:
                        return None
                    self._changed.wait()
                    continue
                queue, wait = self._first(), 0.0
                if not self._closed and (wait := queue[0].latest - monotonic()) > 0:
                    full = next((each for each in self._waiting.values() if len(each) >= self._size), None)
                    if full is None:
                        self._changed.wait(wait)
                        continue
                    queue = full
                length = len(queue[0].waveform)
                batch = [queue.popleft() for _ in range(min(len(queue), self._size))]
                if not queue:
                    del self._waiting[length]
                return batch

    def _first(self) -> deque[_Waiting]:
        return min(self._waiting.values(), key=lambda queue: queue[0].latest)
