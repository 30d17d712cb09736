"""A bundle to test, and what its parts are tested with where it is installed."""

import shutil
import sys
from pathlib import Path

import pytest
import torch

from fastloaa.export import to_onnx, write_bundle
from fastloaa.export.bundle.browser import ARCHIVE, ONNXRUNTIME_WEB
from helpers.small import SMALL, small_ast

LABELS = ("dog", "Säge", "a, b", "sea waves", 'a "quoted" one')


def make_bundle(folder: Path, onnxruntime_web: Path | None = None) -> Path:
    """Of a model of five classes that hears 10,480 samples at once."""
    torch.manual_seed(0)
    to_onnx(small_ast(labels=LABELS, backbone_options=SMALL | {"depth": 1}), folder / "model.onnx")
    write_bundle(folder / "model.onnx", folder, onnxruntime_web)
    return folder


def onnxruntime_web() -> Path:
    """npm's archive, which `make test` puts into the virtual environment where there is npm."""
    archive = Path(sys.prefix) / ARCHIVE
    if not archive.is_file():
        pytest.skip(f"{archive.name} is not in {sys.prefix}: npm pack onnxruntime-web@{ONNXRUNTIME_WEB} there")
    return archive


def program(*names: str) -> str:
    """The first of some programs that is installed, else the test is skipped."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"{' or '.join(names)} is not installed")
    return found
