"""fastloaa: fused Look-Aside Adapters (LoAA) that adapt a vision transformer to sound, from training to serving."""

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
