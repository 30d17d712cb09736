"""Settings from YAML and the command line: names and types checked against a dataclass."""

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from fastloaa.errors import FastloaaError

T = TypeVar("T")


class OptionError(FastloaaError, ValueError):
    """A setting with an unknown name, or a value that does not fit; the message is one line."""


def build(cls: type[T], values: Mapping[str, Any], what: str) -> T:
    """`cls(**values)` for a dataclass, refusing unknown names; the dataclass checks the values with `check_types`.

    Args:
        what: names the thing in error messages, e.g. "recipe".

    Raises:
        OptionError: no mapping, a name that is not a field, or a field without default that is missing.
    """
    if not isinstance(values, Mapping):
        raise OptionError(f"{what} is {_describe(Mapping)}, got {repr(values)[:200]}")
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise OptionError(unknown(f"{what} option", name, known))
    for name, field in known.items():
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise OptionError(f"{what}: {name} is missing; it has no default")
    return cls(**values)


def check_types(options: Any) -> None:
    """Convert the fields of a dataclass to their types where nothing is lost: 1 to 1.0, a list to a tuple.

    Raises:
        OptionError: a value of another type.
    """
    hints = get_type_hints(type(options))
    for name in (field.name for field in fields(options)):
        hint, value = hints[name], getattr(options, name)
        try:
            object.__setattr__(options, name, _convert(value, hint))
        except _MismatchError:
            raise OptionError(f"{name} is {_describe(hint)}, got {repr(value)[:200]}") from None


def check_at_least(options: Any, name: str, low: int) -> None:
    """Raise an OptionError if the field is below its lowest value."""
    if getattr(options, name) < low:
        raise OptionError(f"{name} is at least {low}, got {getattr(options, name)}")


def check_fraction(options: Any, name: str) -> None:
    """Raise an OptionError unless the field is in [0, 1)."""
    if not 0 <= getattr(options, name) < 1:
        raise OptionError(f"{name} is a fraction in [0, 1), got {getattr(options, name)}")


def unknown(what: str, given: object, names: Iterable[str]) -> str:
    """Message for a name that is not one of `names`: the nearest one, or all of them."""
    names = list(names)
    nearest = difflib.get_close_matches(str(given), names, n=1)
    if nearest:
        return f"unknown {what} {given!r}; did you mean {nearest[0]!r}?"
    return f"unknown {what} {given!r}; {f'expected {_or(names)}' if names else 'there are none'}"


class _MismatchError(Exception):
    """A value that does not have the annotated type."""


_NAMES: dict[Any, str] = {int: "an integer", float: "a number", str: "text", bool: "true or false", NoneType: "null"}


def _convert(value: Any, hint: Any) -> Any:
    """`value` as the type `hint`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        for alternative in arguments:
            try:
                return _convert(value, alternative)
            except _MismatchError:
                continue
    elif origin is Literal and isinstance(value, str) and value in arguments:
        return value
    elif origin is tuple and isinstance(value, list | tuple):
        hints = arguments[:1] * len(value) if arguments[-1] is ... else arguments
        if len(hints) == len(value):
            return tuple(_convert(item, item_hint) for item, item_hint in zip(value, hints, strict=True))
    elif origin in (list, Sequence) and isinstance(value, list | tuple):
        return [_convert(item, arguments[0]) for item in value]
    elif is_dataclass(hint) and isinstance(value, hint):  # type: ignore[arg-type]
        return value
    elif origin is Mapping and isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return dict(value)
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif hint is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    elif hint in _NAMES and type(value) is hint:
        return value
    raise _MismatchError


def _describe(hint: Any) -> str:
    """A type in words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _or([_describe(alternative) for alternative in arguments])
    if origin is Literal:
        return _or([repr(value) for value in arguments])
    if origin in (list, Sequence) or (origin is tuple and arguments[-1] is ...):
        return f"a list, each {_describe(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(_describe(argument) for argument in arguments)}]"
    return "a mapping of names to values" if Mapping in (origin, hint) or is_dataclass(hint) else _NAMES[hint]


def _or(words: list[str]) -> str:
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
