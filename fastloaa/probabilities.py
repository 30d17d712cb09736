"""From logits to probabilities, as the loss takes them that a model was trained with."""

from typing import Literal, get_args

from torch import Tensor, nn

from fastloaa.errors import ArgumentError

Probabilities = Literal["softmax", "sigmoid"]


def to_probabilities(logits: Tensor, kind: Probabilities) -> Tensor:
    """Logits [batch, classes] -> the same: "softmax" over the classes, or "sigmoid", where each stands for itself."""
    return logits.sigmoid() if kind == "sigmoid" else logits.softmax(dim=1)


def check_probabilities(kind: str, multi_label: bool) -> None:
    """Are these what a model can have?

    Raises:
        ArgumentError: an unknown kind, or a softmax over classes of which several may be right.
    """
    if kind not in get_args(Probabilities):
        raise ArgumentError(f'probabilities is "softmax" or "sigmoid", got {kind!r}')
    if multi_label and kind != "sigmoid":
        raise ArgumentError('several labels to a clip go with probabilities "sigmoid"; give that, or multi_label=False')


def probabilities_of(model: nn.Module) -> Probabilities:
    """The kind that a model was trained for: what `AST` says of itself, else "softmax"."""
    return getattr(model, "probabilities", "softmax")
