"""What all tests share."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import NoReturn

import pytest
import torch
from hypothesis import settings
from packaging.version import Version

from fastloaa.ops.triton_version import NO_TRITON, NOT_COMPILED

settings.register_profile("no clock", deadline=None)  # machines may be busy
settings.load_profile("no clock")
torch.set_num_threads(1)  # tensors here are small: threads would spend their time waiting for each other


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Each test draws the same random numbers alone or in company."""
    torch.manual_seed(0)


def skipping(reason: str) -> Callable[..., NoReturn]:
    """Stands in for what an old version lacks: whatever test comes to it, wherever it does, is skipped."""

    def skip(*_: object, **__: object) -> NoReturn:
        pytest.skip(reason)

    return skip


if Version(torch.__version__) < Version("2.8"):
    import fastloaa.export.onnx

    torch.onnx.export = fastloaa.export.onnx.check_torch = skipping("exports to ONNX, which needs torch 2.8")
    torch.onnx.ops = SimpleNamespace(attention=torch.onnx.export)
if NOT_COMPILED is not None and NO_TRITON is None:
    import fastloaa.kernels.resources

    fastloaa.kernels.resources.compiling_for = skipping(NOT_COMPILED)
