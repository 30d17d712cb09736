"""Audio models that adapters go into."""

from fastloaa.models.ast import AST
from fastloaa.models.layouts import WeightsError

__all__ = ["AST", "WeightsError"]
