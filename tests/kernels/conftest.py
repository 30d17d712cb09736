"""What the tests of the kernels share; how they run is said in tests/test_kernels.py."""

from collections.abc import Iterator

import pytest
import torch
from bfloat16 import put_right

from fastloaa.kernels.interpreted import INTERPRETED

if not (INTERPRETED or torch.cuda.is_available()):
    raise pytest.UsageError("tests/kernels needs a GPU, or TRITON_INTERPRET=1 in the environment of pytest")


@pytest.fixture
def plain_interpreter() -> None:
    """Triton's interpreter as users have it, without what the tests put right."""


@pytest.fixture(autouse=True)
def _bfloat16(request: pytest.FixtureRequest) -> Iterator[None]:
    if INTERPRETED and "plain_interpreter" not in request.fixturenames:
        with put_right():
            yield
    else:
        yield


@pytest.fixture(autouse=True)
def _convolutions_in_float32() -> Iterator[None]:
    """PyTorch's own, which the kernels are compared with, round to TF32 on a GPU unless told otherwise."""
    new = hasattr(torch.backends.cuda.matmul, "fp32_precision")  # since torch 2.9
    switch = torch.backends.cudnn.conv if new else torch.backends.cudnn
    name, exact = ("fp32_precision", "ieee") if new else ("allow_tf32", False)
    before = getattr(switch, name)
    setattr(switch, name, exact)
    yield
    setattr(switch, name, before)


@pytest.fixture(autouse=True)
def _fresh_memory_is_nan() -> Iterator[None]:
    """PyTorch fills every new tensor with NaN, so that an element that no kernel writes fails its test."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)
