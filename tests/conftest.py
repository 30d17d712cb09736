"""What all tests share."""

from types import SimpleNamespace
from typing import NoReturn

import pytest
import torch
from packaging.version import Version

torch.set_num_threads(1)  # tensors here are small: threads would spend their time waiting for each other


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Each test draws the same random numbers alone or in company."""
    torch.manual_seed(0)


if Version(torch.__version__) < Version("2.8"):
    import fastloaa.export.onnx

    def _skip(*_: object, **__: object) -> NoReturn:
        pytest.skip("exports to ONNX, which needs torch 2.8")

    # What comes to exporting is skipped, wherever it does; a command would only say that it cannot.
    torch.onnx.export = _skip
    torch.onnx.ops = SimpleNamespace(attention=_skip)
    fastloaa.export.onnx.check_torch = _skip
