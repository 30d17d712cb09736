"""What a file may say of the model that it belongs to."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm

from fastloaa.files import FileError


def check_architecture(file: str | Path, config: Mapping[str, Any]) -> None:
    """timm takes names that lead to the hub, and options that name files and addresses to load: none from strangers.

    Args:
        file: for the message.
        config: arguments of `AST`, as `AST.config` has them.

    Raises:
        FileError: one of them.
    """
    backbone, options = config.get("backbone"), config.get("backbone_options") or {}
    if backbone is not None and not (isinstance(backbone, str) and timm.is_model(backbone)):
        raise FileError(f"{file}: its backbone {str(backbone)[:80]!r} is none of timm's; a newer timm may have it")
    if not isinstance(options, Mapping):
        raise FileError(f"{file}: its backbone_options are {type(options).__name__}, expected names with values")
    for name, value in options.items():
        plain = isinstance(value, bool | int | float | list | tuple | None)
        plain = plain or (isinstance(value, str) and "/" not in value)
        if not plain or str(name).startswith(("pretrained", "checkpoint", "cache")):
            raise FileError(f"{file}: option {str(name)[:80]!r} of its backbone is not one of an architecture; refused")
