"""What the paper says of a recipe."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import Self

from fastloaa.inputs.options import build, check_types


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """What the paper says of a recipe, in the recipe's field `paper`.

    Attributes:
        source: which paper.
        rows: of its tables that are this recipe.
        share: of the parameters that train, as printed.
        classes: of the data set.
        trainable_parameters: that train with so many classes.
        printed_parameters: the count as printed; None where only the share is.
        figures: by the heading of their column, as printed; None where none is.

    Raises:
        OptionError: a value of the wrong type.
    """

    source: str | None = None
    rows: tuple[str, ...] = ()
    share: str | None = None
    classes: int | None = None
    trainable_parameters: int | None = None
    printed_parameters: str | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_types(self)

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        """From the field `paper` of a recipe.

        Raises:
            OptionError: an unknown name, or a value of the wrong type.
        """
        return build(cls, values, "paper")

    def figures_text(self) -> str:
        """`Top-1 54.14, mAP 0.238`."""
        return ", ".join(f"{heading} {figure}" for heading, figure in self.figures.items() if figure is not None)
