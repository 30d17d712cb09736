"""What LoAA is compared with, and LoAA itself, behind one small protocol."""

from collections.abc import Mapping
from typing import Any

from fastloaa.methods.adapters import LoAAMethod, ProbeMethod
from fastloaa.methods.base import Method
from fastloaa.methods.full import FullMethod
from fastloaa.methods.options import OptionError, build

METHODS: dict[str, type[Method]] = {method.name: method for method in (LoAAMethod, ProbeMethod, FullMethod)}

__all__ = ["METHODS", "FullMethod", "LoAAMethod", "Method", "OptionError", "ProbeMethod", "build_method"]


def build_method(name: str, options: Mapping[str, Any] | None = None) -> Method:
    """The method of that name with its options, e.g. `build_method("loaa", {"attn": "time", "bottleneck": 72})`.

    Raises:
        OptionError: an unknown method, an option that it does not have, or a value that does not fit.
    """
    if name not in METHODS:
        raise OptionError(f"unknown method {name!r}; expected {', '.join(METHODS)}")
    return build(METHODS[name], options or {}, name)
