"""Which errors are the library's own."""

import pytest

import fastloaa
from fastloaa.errors import ArgumentError, ArgumentTypeError, FastloaaError


@pytest.mark.parametrize(("kind", "base"), [(ArgumentError, ValueError), (ArgumentTypeError, TypeError)])
def test_refusals_are_also_pythons_own_kind(kind: type[Exception], base: type[Exception]) -> None:
    assert issubclass(kind, FastloaaError)
    assert issubclass(kind, base)
    assert fastloaa.FastloaaError is FastloaaError
