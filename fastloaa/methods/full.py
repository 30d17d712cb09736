"""Full fine-tuning: everything trains."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from fastloaa.models import AST


@dataclass(frozen=True)
class FullMethod:
    """All weights train, and the whole model is saved."""

    name: ClassVar[str] = "full"
    weights_file: ClassVar[str] = "model.safetensors"

    def apply(self, model: AST) -> AST:
        return model.requires_grad_(True)

    def save(self, model: AST, path: str | Path) -> None:
        model.save(path)

    def load(self, path: str | Path, weights: str | Path | None) -> AST:
        return AST.load(path)
