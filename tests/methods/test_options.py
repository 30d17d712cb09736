"""Settings: what is converted, what is refused, and how the refusal reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from fastloaa.inputs.options import OptionError, build, check_types, unknown


@dataclass(frozen=True)
class Options:
    kind: ClassVar[str] = "x"
    count: int
    rate: float = 0.5
    name: str | None = None
    mode: Literal["a", "b"] = "a"
    size: int | tuple[int, int] = 3
    flag: bool = False
    names: tuple[Literal["a", "b"], ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_types(self)


def test_values_are_converted_where_nothing_is_lost() -> None:
    values = {"count": 2, "rate": 1, "name": Path("a/b"), "size": [1, 5], "names": ["b", "a", "b"], "more": {"k": [1]}}
    options = build(Options, values, "thing")
    assert options == Options(2, 1.0, "a/b", "a", (1, 5), False, ("b", "a", "b"), {"k": [1]})
    assert isinstance(options.rate, float)
    assert isinstance(options.size, tuple)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 1, "rat": 2}, "unknown thing option 'rat'; did you mean 'rate'?"),
        (
            {"count": 1, "zzz": 2},
            "unknown thing option 'zzz'; expected count, rate, name, mode, size, flag, names or more",
        ),
        ({}, "thing: count is missing; it has no default"),
        ({"count": 1.5}, "count is an integer, got 1.5"),
        ({"count": True}, "count is an integer, got True"),
        ({"count": None}, "count is an integer, got None"),
        ({"count": 1, "rate": "fast"}, "rate is a number, got 'fast'"),
        ({"count": 1, "rate": False}, "rate is a number, got False"),
        ({"count": 1, "name": 3}, "name is text or null, got 3"),
        ({"count": 1, "mode": "c"}, "mode is 'a' or 'b', got 'c'"),
        ({"count": 1, "mode": ["a"]}, "mode is 'a' or 'b', got ['a']"),
        ({"count": 1, "size": [1, 2, 3]}, "size is an integer or [an integer, an integer], got [1, 2, 3]"),
        ({"count": 1, "size": [1, "2"]}, "size is an integer or [an integer, an integer], got [1, '2']"),
        ({"count": 1, "names": ["a", "c"]}, "names is a list, each 'a' or 'b', got ['a', 'c']"),
        ({"count": 1, "names": "a"}, "names is a list, each 'a' or 'b', got 'a'"),
        ({"count": 1, "flag": 1}, "flag is true or false, got 1"),
        ({"count": 1, "more": {1: 2}}, "more is a mapping of names to values, got {1: 2}"),
    ],
)
def test_refusals(values: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        build(Options, values, "thing")
    assert str(caught.value) == message


def test_nothing_to_choose_from() -> None:
    assert unknown("probe option", "attn", []) == "unknown probe option 'attn'; there are none"
