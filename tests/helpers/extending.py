"""The code of docs/extending.md, run."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from fastloaa.audio import FRONT_ENDS
from fastloaa.backbones import FAMILIES
from fastloaa.data import LAYOUTS
from fastloaa.export.precisions import PRECISIONS
from fastloaa.methods import METHODS
from fastloaa.ops.activations import ACTIVATIONS

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


@contextmanager
def example(heading: str) -> Iterator[dict[str, Any]]:
    """What the page defines under a heading; afterwards all registries are as they were."""
    _, found, rest = PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    assert found, f"no heading {heading!r}"
    families, names = FAMILIES[:], {"__name__": "example"}
    with ExitStack() as registries:
        for registry in (ACTIVATIONS, FRONT_ENDS, LAYOUTS, METHODS, PRECISIONS):
            registries.enter_context(patch.dict(registry))
        registries.callback(lambda: FAMILIES.__setitem__(slice(None), families))
        for code in re.findall(r"```python\n(.*?)```", rest.split("\n## ")[0], re.DOTALL):
            exec(code, names)
        yield names
