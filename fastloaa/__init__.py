"""fastloaa: fused Look-Aside Adapters (LoAA) that adapt a vision transformer to sound, from training to serving.

The public names are imported when they are first used: `import fastloaa` itself loads nothing, neither torch nor timm.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names as in `_MODULES`, for type checkers and editors
    from fastloaa.adapt import adapt, trainable_parameters
    from fastloaa.adapter import LoAA
    from fastloaa.adapter_file import load_adapter, save_adapter
    from fastloaa.combine import average, concat
    from fastloaa.errors import FastloaaError
    from fastloaa.grid import TokenGrid
    from fastloaa.models import AST
    from fastloaa.ops.functional import loaa
    from fastloaa.ops.normed import NormedFrom, norm_once

__version__ = "0.1.0"

__all__ = [
    "AST",
    "FastloaaError",
    "LoAA",
    "NormedFrom",
    "TokenGrid",
    "adapt",
    "average",
    "concat",
    "loaa",
    "load_adapter",
    "norm_once",
    "save_adapter",
    "trainable_parameters",
]

_MODULES = {
    "AST": "fastloaa.models",
    "FastloaaError": "fastloaa.errors",
    "LoAA": "fastloaa.adapter",
    "NormedFrom": "fastloaa.ops.normed",
    "TokenGrid": "fastloaa.grid",
    "adapt": "fastloaa.adapt",
    "average": "fastloaa.combine",
    "concat": "fastloaa.combine",
    "loaa": "fastloaa.ops.functional",
    "load_adapter": "fastloaa.adapter_file",
    "norm_once": "fastloaa.ops.normed",
    "save_adapter": "fastloaa.adapter_file",
    "trainable_parameters": "fastloaa.adapt",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """`fastloaa.adapt` is the function, though Python would have it be the module of that name once it is imported."""

    @property
    def adapt(self) -> Any:
        return import_module("fastloaa.adapt").adapt

    @adapt.setter
    def adapt(self, _module: ModuleType) -> None:
        """Python sets the module when it has imported it."""


sys.modules[__name__].__class__ = _Package
