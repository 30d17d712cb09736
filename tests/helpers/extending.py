"""The code of docs/extending.md, run."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from fastloaa.audio import FRONT_ENDS
from fastloaa.backbones import FAMILIES
from fastloaa.data import LAYOUTS
from fastloaa.export.precisions import PRECISIONS
from fastloaa.methods import METHODS
from fastloaa.ops.activations import ACTIVATIONS
from helpers import pages

PAGE = pages.ROOT / "docs" / "extending.md"


@contextmanager
def registries_as_they_are() -> Iterator[None]:
    """Whatever is registered inside is gone afterwards."""
    families = FAMILIES[:]
    with ExitStack() as registries:
        for registry in (ACTIVATIONS, FRONT_ENDS, LAYOUTS, METHODS, PRECISIONS):
            registries.enter_context(patch.dict(registry))
        registries.callback(lambda: FAMILIES.__setitem__(slice(None), families))
        yield


@contextmanager
def example(heading: str) -> Iterator[dict[str, Any]]:
    """What the page defines under a heading; afterwards all registries are as they were."""
    names: dict[str, Any] = {"__name__": "example"}
    with registries_as_they_are():
        pages.run(PAGE, names, heading)
        yield names
