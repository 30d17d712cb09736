"""A few shapes under pytest-benchmark: `pytest bench --benchmark-only`."""

from typing import Any

import pytest
import torch
from providers import EAGER, FUSED, fused_runs
from shapes import Case
from speed import Inputs

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PROVIDERS = EAGER | ({"triton": FUSED} if fused_runs(DEVICE) else {})


@pytest.mark.parametrize("mode", ["forward", "forward+backward"])
@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(("freq", "time"), [(8, 64), (8, 8)])
def test_speed(benchmark: Any, freq: int, time: int, provider: str, mode: str) -> None:
    on_gpu = DEVICE.type == "cuda"
    case = Case(64 if on_gpu else 8, freq, time, 768, 36, "time", "bf16" if on_gpu else "fp32", summands=True)
    inputs = Inputs(case, DEVICE)
    run = inputs.inference if mode == "forward" else inputs.training

    def call() -> None:
        run(PROVIDERS[provider], case.grid, 0)
        if on_gpu:
            torch.cuda.synchronize()

    benchmark.group = f"{freq}x{time} {mode}"
    benchmark(call)
