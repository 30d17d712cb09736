"""Timing on a GPU, with one that is imagined: a device that works through its queue while the host goes on."""

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCH = Path(__file__).parents[1] / "bench"
COPY, LAUNCH = 0.5, 0.01  # milliseconds of the device for a copy, of the host for its launch


class ImaginedGpu:
    """Two clocks in milliseconds: what the host has done, and when the device will have done all it was given."""

    def __init__(self) -> None:
        self.host = self.device = 0.0

    def launch(self, host: float, device: float) -> None:
        self.host += host
        self.device = max(self.device, self.host) + device

    def synchronize(self, *_: object) -> None:
        self.host = max(self.host, self.device)

    def event(self, enable_timing: bool) -> "ImaginedGpu.Event":
        assert enable_timing
        return ImaginedGpu.Event(self)

    class Event:
        def __init__(self, gpu: "ImaginedGpu") -> None:
            self.gpu = gpu

        def record(self) -> None:
            self.time = max(self.gpu.host, self.gpu.device)

        def query(self) -> bool:
            return self.time <= self.gpu.host

        def elapsed_time(self, end: "ImaginedGpu.Event") -> float:
            return end.time - self.time


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ImaginedGpu:
    monkeypatch.syspath_prepend(BENCH)
    import timing

    made = ImaginedGpu()
    monkeypatch.setattr(torch.cuda, "synchronize", made.synchronize)
    monkeypatch.setattr(torch.cuda, "Event", made.event)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: made.host / 1e3)

    class Copies:
        def copy_(self, _: object) -> None:
            made.launch(LAUNCH, COPY)

    monkeypatch.setattr(timing.torch, "zeros", lambda *_, **__: Copies())
    monkeypatch.setattr(timing.torch, "empty_like", lambda *_: Copies())
    return made


def timed(gpu: ImaginedGpu, call: Callable[[int], None], queued: bool) -> object:
    timing: ModuleType = sys.modules["timing"]
    return timing.in_turns({"it": call}, torch.device("cuda"), 3, queued=queued)["it"]


@pytest.mark.parametrize(("host", "device"), [(0.3, 0.085), (30.0, 0.1), (0.01, 2.0)])
def test_a_filled_queue_shows_the_device_and_the_wall_both(gpu: ImaginedGpu, host: float, device: float) -> None:
    """However long the host takes to launch; an event before each call alone would measure the host."""
    timing = timed(gpu, lambda _: gpu.launch(host, device), queued=True)
    assert timing.median == pytest.approx(device)  # type: ignore[attr-defined]
    # Three calls: launched one after the other, and the device done with the last.
    expected = (3 * host + device) / 3 if host > device else (host + 3 * device) / 3
    assert timing.wall == pytest.approx(expected)  # type: ignore[attr-defined]


def test_whole_models_are_timed_as_they_run(gpu: ImaginedGpu) -> None:
    timing = timed(gpu, lambda _: gpu.launch(5.0, 1.0), queued=False)
    assert timing.median == timing.wall == pytest.approx((3 * 5.0 + 1.0) / 3)  # type: ignore[attr-defined]


def test_a_call_that_waits_for_the_device_is_refused(gpu: ImaginedGpu) -> None:
    def waits(_: int) -> None:
        gpu.launch(0.1, 0.1)
        gpu.synchronize()

    with pytest.raises(RuntimeError, match="waits for the device"):
        timed(gpu, waits, queued=True)


def test_inputs_rotate_alike_in_both_measures(gpu: ImaginedGpu) -> None:
    seen: list[int] = []
    timed(gpu, lambda call: (seen.append(call), gpu.launch(0.01, 0.1))[1], queued=True)
    calls = [list(group) for _, group in itertools.groupby(seen[3:], key=lambda call: call // 3)]
    assert {call for group in calls for call in group} == set(range(9))
