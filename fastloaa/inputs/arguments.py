"""What people have at hand, taken where it has one meaning and refused in one line where it has none."""

import operator
import os
from collections.abc import Mapping, Set
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from fastloaa.errors import ArgumentError, ArgumentTypeError


def as_tensor(name: str, value: Any, like: Tensor, expected: str) -> Tensor:
    """A tensor as it is; a numpy array or nested lists of floating-point numbers as a tensor like `like`.

    Args:
        name, expected: what it is called and what it should be, for the message: "log_mel", "log-mel [batch, ...]".

    Raises:
        ArgumentTypeError: something else.
        ArgumentError: whole or complex numbers, or lists of unlike lengths.
    """
    if isinstance(value, torch.fx.Proxy):
        return cast(Tensor, value)
    if not isinstance(value, Tensor):
        if not isinstance(value, np.ndarray | list | tuple):
            raise ArgumentTypeError(f"{name} is {expected}, a tensor or a numpy array; got {type(value).__name__}")
        try:
            value = torch.tensor(np.ascontiguousarray(value))  # copied, since it may be read-only
        except (TypeError, ValueError) as error:
            raise ArgumentError(f"{name} is {expected}; got numbers that make no tensor ({error})") from error
        if value.is_floating_point():
            value = value.to(like.device, like.dtype)
    if not value.is_floating_point():
        raise ArgumentError(f"{name} is {expected}, floating point; got {value.dtype}")
    return value


def whole(name: str, value: Any, least: int = 1) -> int:
    """A whole number of at least `least`, numpy's too.

    Raises:
        ArgumentError: something else.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        raise ArgumentError(f"{name} is a whole number, at least {least}; got {name}={value!r}")
    return number


def number(name: str, value: Any) -> float:
    """A finite number.

    Raises:
        ArgumentError: something else.
    """
    try:
        found = float("nan") if isinstance(value, str | bool) else float(value)
    except (TypeError, ValueError, RuntimeError):
        found = float("nan")
    if found - found != 0:
        raise ArgumentError(f"{name} is a finite number; got {value!r}")
    return found


def class_names(labels: Any, classes: int) -> tuple[str, ...]:
    """Names of the classes in their order, as words.

    Raises:
        ArgumentError: one word; a dict, of which there would be the keys, or a set, which has no order; more or fewer
            than there are classes.
    """
    if isinstance(labels, str | Mapping | Set):
        raise ArgumentError(f"labels are the names of the classes, a list; got {labels!r:.80}")
    names = tuple(map(str, labels))
    if len(names) != classes:
        raise ArgumentError(f"{len(names)} labels were given for {classes} classes; give one name for each class")
    return names


def check_module(model: Any) -> None:
    """Raise TypeError unless `model` is one: not its name, its class, or a file of it."""
    if not isinstance(model, nn.Module):
        given = f"the class {model.__name__}" if isinstance(model, type) else f"{type(model).__name__} {model!r:.80}"
        raise ArgumentTypeError(
            f"expected a model, got {given}; build it first: fastloaa.AST(num_classes, ...) or timm.create_model(name)"
        )


def check_path(path: Any) -> None:
    """Raise TypeError unless `path` is one."""
    if not isinstance(path, str | os.PathLike):
        raise ArgumentTypeError(f"expected the path of a file, got {type(path).__name__}")
