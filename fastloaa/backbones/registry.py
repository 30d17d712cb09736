"""The families of models that adapters go into."""

from typing import Any

from torch import nn

from fastloaa.backbones.base import Backbone
from fastloaa.errors import ArgumentTypeError
from fastloaa.inputs import check_module

FAMILIES: list[type[Backbone]] = []
"""The families of models that carry adapters; the first that matches a model is asked."""


def register(family: type[Backbone]) -> type[Backbone]:
    """Add a family of models; usable as a decorator. Later ones are asked before earlier ones."""
    if not (isinstance(family, type) and issubclass(family, Backbone)):
        raise ArgumentTypeError(f"a family is a subclass of fastloaa.backbones.Backbone, got {family!r:.80}")
    if family not in FAMILIES:
        FAMILIES.insert(0, family)
    return family


def backbone_of(model: Any) -> Backbone:
    """`model` as adapters see it; a `Backbone` as it is.

    Raises:
        ArgumentTypeError: not a model, or one of a family that is not known.
    """
    if isinstance(model, Backbone):
        return model
    check_module(model)
    found = find_backbone(model)
    if found is None:
        kinds = [family.kind for family in FAMILIES]
        raise ArgumentTypeError(
            f"adapters go into {', '.join(kinds[:-1])} or {kinds[-1]}, got {type(model).__name__}; for other models "
            f"write a fastloaa.backbones.Backbone (docs/extending.md), or put fastloaa.LoAA beside the blocks yourself"
        )
    return found


def find_backbone(model: nn.Module) -> Backbone | None:
    """As `backbone_of`, None for a model of no known family."""
    for family in FAMILIES:
        if family.matches(model):
            return family(model)
    return None
