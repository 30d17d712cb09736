"""Versions in which a dependency has what a test needs."""

from importlib.metadata import version

import pytest
from packaging.version import Version


def skip_before(package: str, first: str, lacks: str) -> None:
    """Skip the test under a version of a package before `first`; `lacks` says what is amiss there."""
    installed = version(package)
    if Version(installed) < Version(first):
        pytest.skip(f"{package} {installed} {lacks}; {first} is known to be right")
