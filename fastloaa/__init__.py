"""fastloaa: fused Look-Aside Adapters (LoAA) that adapt a vision transformer to sound, from training to serving.

The public names are imported when they are first used: `import fastloaa` itself loads nothing, neither torch nor timm.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names as in `_MODULES`, for type checkers and editors
    from fastloaa.adapters.adapting import adapt, trainable_parameters
    from fastloaa.adapters.combine import average, concat
    from fastloaa.adapters.files import load_adapter, save_adapter
    from fastloaa.adapters.loaa import LoAA
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
    "LoAA": "fastloaa.adapters.loaa",
    "NormedFrom": "fastloaa.ops.normed",
    "TokenGrid": "fastloaa.grid",
    "adapt": "fastloaa.adapters.adapting",
    "average": "fastloaa.adapters.combine",
    "concat": "fastloaa.adapters.combine",
    "loaa": "fastloaa.ops.functional",
    "load_adapter": "fastloaa.adapters.files",
    "norm_once": "fastloaa.ops.normed",
    "save_adapter": "fastloaa.adapters.files",
    "trainable_parameters": "fastloaa.adapters.adapting",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
