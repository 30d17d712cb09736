"""Audio models that adapters go into."""

from fastloaa.models.ast import AST
from fastloaa.models.weights import WeightsError

__all__ = ["AST", "WeightsError"]
