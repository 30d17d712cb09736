"""fastloaa: fused Look-Aside Adapters (LoAA) that adapt a vision transformer to sound, from training to serving.

The public names are imported when they are first used: `import fastloaa` itself loads nothing, neither torch nor timm.
"""

from typing import TYPE_CHECKING

from fastloaa.lazy import imported_when_used

if TYPE_CHECKING:  # the same names as in `_MODULES`, for type checkers and editors
    from fastloaa.adapters.adapting import adapt, trainable_parameters
    from fastloaa.adapters.combine import average, concat
    from fastloaa.adapters.files import load_adapter, save_adapter
    from fastloaa.adapters.loaa import LoAA
    from fastloaa.adapters.named import model_adapters, name_adapters
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
    "model_adapters",
    "name_adapters",
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
    "model_adapters": "fastloaa.adapters.named",
    "name_adapters": "fastloaa.adapters.named",
    "norm_once": "fastloaa.ops.normed",
    "save_adapter": "fastloaa.adapters.files",
    "trainable_parameters": "fastloaa.adapters.adapting",
}

__getattr__, __dir__ = imported_when_used(__name__, _MODULES)
