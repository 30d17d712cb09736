"""fastloaa: fused Look-Aside Adapters (LoAA) that adapt a vision transformer to sound, from training to serving."""

from fastloaa.adapters.adapting import adapt, trainable_parameters
from fastloaa.adapters.combine import average, concat
from fastloaa.adapters.files import load_adapter, save_adapter
from fastloaa.adapters.loaa import LoAA
from fastloaa.errors import FastloaaError
from fastloaa.functional import loaa
from fastloaa.grid import TokenGrid
from fastloaa.models import AST
from fastloaa.normed import NormedFrom, norm_once

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
