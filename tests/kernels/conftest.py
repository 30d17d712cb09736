"""What the tests of the kernels share; how they run is said in tests/test_kernels.py."""

from collections.abc import Iterator

import pytest
import torch

from fastloaa.kernels.ops import INTERPRETED

if not (INTERPRETED or torch.cuda.is_available()):
    raise pytest.UsageError("tests/kernels needs a GPU, or TRITON_INTERPRET=1 in the environment of pytest")


@pytest.fixture(autouse=True)
def _fresh_memory_is_nan() -> Iterator[None]:
    """PyTorch fills every new tensor with NaN, so that an element that no kernel writes fails its test."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)
