"""What LoAA is compared with, and LoAA itself, behind one small protocol."""

from collections.abc import Mapping
from typing import Any

from fastloaa.inputs.options import OptionError, build, unknown
from fastloaa.methods.aat import AATMethod
from fastloaa.methods.adapters import LoAAMethod, ParallelMethod, ProbeMethod
from fastloaa.methods.base import Method
from fastloaa.methods.convpass import ConvpassMethod
from fastloaa.methods.full import FullMethod
from fastloaa.methods.lora import LoRAMethod
from fastloaa.methods.prompt import PromptMethod

_METHODS: tuple[type[Method], ...] = (
    LoAAMethod,
    ParallelMethod,
    ProbeMethod,
    FullMethod,
    ConvpassMethod,
    AATMethod,
    LoRAMethod,
    PromptMethod,
)
METHODS: dict[str, type[Method]] = {method.name: method for method in _METHODS}
"""The methods by their names in recipes and on the command line."""

__all__ = ["METHODS", "Method", "OptionError", "build_method"]


def build_method(name: str, options: Mapping[str, Any] | None = None) -> Method:
    """The method of that name with its options, e.g. `build_method("loaa", {"attn": "time", "bottleneck": 72})`.

    Raises:
        OptionError: an unknown method, an option that it does not have, or a value that does not fit.
    """
    if name not in METHODS:
        raise OptionError(unknown("method", name, METHODS))
    return build(METHODS[name], options or {}, name)
