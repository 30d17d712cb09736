"""Packages that come with an extra: looked for when they are needed, and asked for in one line where they are missing.

A file that cannot do without one says so before it imports it: `needs("matplotlib")`. What needs one at times takes it
from `optional("h5py")`.
"""

import sys
from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from fastloaa.errors import FastloaaError

EXTRAS: dict[str, tuple[str, ...]] = {
    "audio": ("soundfile", "torchaudio"),
    "train": ("accelerate", "matplotlib", "rich", "torchmetrics", "typer", "yaml"),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "peft": ("peft",),
    "transformers": ("transformers",),
    "formats": ("av",),
    "hdf5": ("h5py",),
    "parquet": ("pyarrow",),
    "serve": ("fastapi", "multipart", "prometheus_client", "uvicorn"),
    "tensorboard": ("tensorboard",),
    "words": ("espeakng_loader",),
}
"""The packages that each extra brings, by the names that they are imported by."""


class MissingPackageError(FastloaaError, ImportError):
    """A package is needed that comes with an extra, and is not installed or does not load."""


def installed(package: str) -> bool:
    """Whether a package is there; it is not imported."""
    if package in sys.modules:
        return sys.modules[package] is not None  # None blocks it
    spec = find_spec(package)
    return spec is not None and spec.has_location  # a folder of that name in the working directory has none


def needs(*packages: str) -> None:
    """Raise MissingPackageError, which says how to install them, if any of the packages is missing."""
    missing = [package for package in packages if not installed(package)]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise MissingPackageError(f"{', '.join(missing)} {verb} not installed; {_advice(missing)}")


def optional(module: str) -> ModuleType:
    """Import a module of an optional package.

    Raises:
        MissingPackageError: the package is not installed or does not load.

    Examples:
        >>> from fastloaa.extras import MissingPackageError, optional
        >>> try:
        ...     onnx = optional("onnx")
        ... except MissingPackageError as error:
        ...     print(error)  # onnx is not installed; pip install 'fastloaa[onnx]', ...
    """
    package = module.partition(".")[0]
    needs(package)
    try:
        return import_module(module)
    except (ImportError, OSError) as error:  # one of its libraries is missing or of another version
        reason = " ".join(str(error).split())
        raise MissingPackageError(
            f"{package} is installed but does not load ({reason}); {_advice([package])}"
        ) from error


def _advice(packages: Iterable[str]) -> str:
    extras = sorted({extra for extra, brought in EXTRAS.items() for package in packages if package in brought})
    advice = f"pip install 'fastloaa[{','.join(extras)}]'"
    return f"{advice}, or onnx-gpu instead of onnx for NVIDIA GPUs" if "onnx" in extras else advice
