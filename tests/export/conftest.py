"""What tests of several files share: a bundle, and a server's models."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastloaa.export import Classifier
from helpers.bundles import make_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without onnxruntime-web; tests leave it as it is."""
    return make_bundle(tmp_path_factory.mktemp("serving") / "my sounds")


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Classifier]:
    """Two that were made in a moment, of `helpers.serving.LABELS`."""
    from helpers.serving import listeners  # which needs onnx, as not all tests here do

    return listeners(tmp_path_factory.mktemp("served"))


@pytest.fixture
def nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No temporary file outlives the test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert not list(folder.iterdir())
