"""A bundle that the tests of its parts share."""

from pathlib import Path

import pytest

from helpers.bundles import make_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without onnxruntime-web; tests leave it as it is."""
    return make_bundle(tmp_path_factory.mktemp("serving") / "my sounds")
