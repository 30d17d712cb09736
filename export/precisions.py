"""The precisions that a model is exported in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastloaa.errors import ArgumentError


@dataclass(frozen=True)
class Precision:
    """How an exported file comes to the precision of its weights and arithmetic; input and outputs are float32 in all.

    Args:
        half: the model is exported with its backbone in float16.
        convert: (source, target, inputs) writes the file `source`, float32, anew as `target`; `inputs` are float32
            arrays of the kind that the file will read. None where the file stays as it was exported.
        recordings: it is only written when there are some to compare it with PyTorch on.
    """

    half: bool = False
    convert: Callable[[Path, Path, Sequence[Any]], None] | None = None
    recordings: bool = True


def _int8(source: Path, target: Path, inputs: Sequence[Any]) -> None:
    from fastloaa.export.quantise import quantise  # whoever asks for the names alone needs no numpy

    quantise(source, target, inputs)


def _int8_dynamic(source: Path, target: Path, _: Sequence[Any]) -> None:
    from fastloaa.export.dynamic import quantise_dynamically

    quantise_dynamically(source, target)


PRECISIONS: dict[str, Precision] = {
    "fp32": Precision(recordings=False),
    "fp16": Precision(half=True),
    "int8": Precision(convert=_int8),
    "int8-dynamic": Precision(convert=_int8_dynamic, recordings=False),
}
"""The precisions by name: what `to_onnx` and `fastloaa export --precision` take, and what a file may say of itself."""


def check_precision(name: str) -> None:
    """Raise ArgumentError unless it is a name in `PRECISIONS`."""
    if name not in PRECISIONS:
        raise ArgumentError(f"precision is one of {', '.join(PRECISIONS)}; got {name!r}")
