"""What a model must answer to carry adapters."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from fastloaa.backbones.blocks import AdaptedBlock, BlockLayout
from fastloaa.errors import ArgumentTypeError
from fastloaa.grid import TokenGrid


class Backbone(ABC):
    """A model as adapters see it: blocks and their parts, the grid of its tokens, their width, the head.

    A family of models is a subclass of this and an entry of the registry (`register`). An object of it holds the model
    and nothing else; what it says is read from the model each time, since that may change.

    Attributes:
        kind: what models of this family are called in messages, such as "a timm VisionTransformer".
        not_merged: why `merge` does not take such a model, and what to do; None: it does.
        model: the whole model, whose state dict has the head.
    """

    kind: ClassVar[str]
    not_merged: ClassVar[str | None] = None
    model: nn.Module

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    @classmethod
    @abstractmethod
    def matches(cls, model: nn.Module) -> bool:
        """Whether `model` is of this family."""

    @property
    def trunk(self) -> nn.Module:
        """The transformer inside the model: `model` itself, or the part of it that holds the blocks."""
        return self.model

    @property
    @abstractmethod
    def blocks(self) -> nn.Sequential | nn.ModuleList:
        """The blocks, in order; each reads and returns [batch, tokens, dim]."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Width of the tokens."""

    @property
    @abstractmethod
    def grid(self) -> TokenGrid:
        """How the tokens lie.

        Raises:
            ArgumentTypeError: they do not keep to a grid.
        """

    def check_fixed(self) -> None:  # noqa: B027 (most have but one size)
        """Asked before each block of a model with adapters.

        Raises:
            ArgumentTypeError: the model takes inputs of other sizes than its grid's, unseen.
        """

    @property
    @abstractmethod
    def head(self) -> Mapping[str, nn.Module]:
        """What trains besides the adapters, by its name in `model`."""

    @abstractmethod
    def layout(self, index: int, block: nn.Module) -> BlockLayout:
        """What block number `index` calls its parts.

        Raises:
            ArgumentTypeError: a block that is not x + attn(norm1(x)), x + mlp(norm2(x)).
        """

    @property
    def adapted_block(self) -> type[AdaptedBlock]:
        """What takes the place of a block; a subclass where the library around it asks for a class of its own."""
        return AdaptedBlock

    @property
    def tokens_read(self) -> int | None:
        """How many tokens, counted from the first, the head can do with; None: all of them, or not known."""
        return None

    @property
    def image_size(self) -> tuple[int, int, int]:
        """(channels, height, width) of what the model reads, if that is images."""
        raise ArgumentTypeError(f"{self.kind} does not read images of a known size")

    def config(self) -> dict[str, Any] | None:
        """JSON-ready arguments that build the model again; None if it does not know them."""
        return None

    def adapted(self) -> None:  # noqa: B027 (most have nothing to do)
        """Called once after adapters, or what `merge` makes of them, have been put in, for what else must be done."""

    def restored(self) -> None:  # noqa: B027 (most have nothing to do)
        """Called once after adapters have been taken out again: undoes what `adapted` did."""
