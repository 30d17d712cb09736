"""What a method of adaptation is."""

from pathlib import Path
from typing import ClassVar, Protocol

from fastloaa.models import AST


class Method(Protocol):
    """One way of adapting a model: what is inserted, what trains, and what is kept of the result.

    A method is a frozen dataclass; its fields are its options, and its name is how recipes and the command line call
    it. New ones need a class like this and a line in `METHODS`; those that insert modules of their own into the blocks
    inherit freezing, saving and loading from `InsertedMethod`.
    """

    name: ClassVar[str]
    weights_file: ClassVar[str]  # what a run directory calls the trained weights

    def apply(self, model: AST) -> AST:
        """Insert what is to be inserted and set `requires_grad` of every parameter, in place; returns `model`."""
        ...

    def save(self, model: AST, path: str | Path) -> None:
        """Write what training changed, and all that `load` needs to know besides the backbone's weights."""
        ...

    def load(self, path: str | Path, weights: str | Path | None) -> AST:
        """The trained model that `save` wrote.

        Args:
            weights: of the backbone as it was before training, as for `AST`; methods that save the backbone with the
                rest do not look at it.
        """
        ...
