"""What repeated calls remember: bounded, safe among threads; and that compiled kernels get what Triton gives them."""

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from fastloaa.kernels.configs import Setting
from fastloaa.kernels.launchable import Launch
from fastloaa.kernels.remembered import Remembered, forget
from fastloaa.kernels.resources import Sample
from fastloaa.ops.triton_version import NOT_COMPILED


def test_the_oldest_makes_room() -> None:
    kept = Remembered(limit=3)
    for number in range(5):
        kept.keep(number, number)
    assert len(kept) == 3
    assert [kept.get(number) for number in range(5)] == [None, None, 2, 3, 4]
    forget()
    assert len(kept) == 0


def test_threads_share_it() -> None:
    kept, interval = Remembered(limit=4), sys.getswitchinterval()

    def work(seed: int) -> None:
        for number in range(2000):
            key = (seed * number) % 16
            value = kept.get(key)
            assert value in (None, key)
            kept.keep(key, key)
            assert len(kept) <= 4

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(1, 5)))
    finally:
        sys.setswitchinterval(interval)


METADATA = 6  # of a launch's arguments: for profilers, made anew each time


class Driver:
    """Triton's driver of a GPU that takes launches and runs none of them."""

    launched: ClassVar[list[tuple[Any, ...]]] = []  # Triton keeps compiled kernels, with their launchers, for good

    def __init__(self) -> None:
        self.launched.clear()
        self.launcher_cls = lambda *_: lambda *arguments: self.launched.append(arguments)
        self.utils = self

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> str:
        return "a GPU that runs nothing"

    def get_current_stream(self, device: str) -> int:
        return 7

    def get_device_properties(self, device: str) -> dict[str, int]:
        return {"max_shared_mem": 1 << 18}

    def load_binary(self, name: str, *_: object) -> tuple[str, str, int, int, int]:
        return "module", name, 32, 0, 1024


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    if NOT_COMPILED is not None:
        pytest.skip(NOT_COMPILED)
    made = Driver()
    driver.set_active(made)
    yield made
    driver.set_active(None)


def ordered(launch: Launch) -> Launch:
    arguments = {name: launch.arguments[name] for name in launch.kernel.arg_names}
    return Launch(launch.kernel, launch.programs, arguments, launch.setting)


@pytest.mark.parametrize("kernel", ["forward", "input_grad", "weight_grad"])
def test_a_compiled_kernel_is_launched_with_what_triton_launches_it_with(kernel: str, gpu: Driver) -> None:
    """Grid, stream, function and every argument: by Triton the first time, by what it compiled the second."""
    sample = Sample(kernel, torch.bfloat16, 8, dim=32, batch=1, device="cpu")
    launch = ordered(sample.launch(Setting(32, 32, 4, 2)))
    launch.run()
    again = launch.with_arguments(dict(launch.arguments), launch.tensors)
    again.run()
    first, second = gpu.launched
    for place, (by_triton, by_hand) in enumerate(zip(first, second, strict=True)):
        if place != METADATA:
            assert by_triton is by_hand or by_triton == by_hand
    assert launch.compiled.keys() == {"kernel"}


def test_addresses_that_are_not_aligned_go_by_way_of_triton(gpu: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    launch = ordered(Sample("forward", torch.bfloat16, 8, dim=32, batch=1, device="cpu").launch(Setting(32, 32, 4, 2)))
    launch.run()
    x = launch.arguments["p_x"]
    shifted = torch.empty(x.numel() + 1, dtype=x.dtype)[1:].view_as(x)
    tensors = [shifted if tensor is x else tensor for tensor in launch.tensors]
    asked: list[Any] = []
    run = triton.JITFunction.run
    monkeypatch.setattr(
        triton.JITFunction, "run", lambda self, *a, **k: (asked.append(k["p_x"]), run(self, *a, **k))[1]
    )
    launch.with_arguments(launch.arguments | {"p_x": shifted}, tensors).run()
    assert len(gpu.launched) == 2
    assert len(asked) == 1
    assert asked[0] is shifted
