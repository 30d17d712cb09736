"""The versions of ONNX's operators that a file can be written in, and the oldest onnxruntime that runs it."""

from fastloaa.errors import ArgumentError

OPSETS = {17: "1.17", 18: "1.17", 20: "1.17", 21: "1.18", 23: "1.23"}
"""By version, the oldest onnxruntime that was tried and runs it (bench/runtimes.py); older ones may."""

DEFAULT = 17
"""The lowest that costs at most 3% of 23's speed, see docs/deployment.md. Not 23: OpenVINO 2026.1 to 2026.2.1 compute
its Attention wrongly, without a word."""

ATTENTION = 23  # the first that has it as an operator


def check_opset(opset: int | None) -> int:
    """The opset itself, the default for None.

    Raises:
        ArgumentError: not one of `OPSETS`.
    """
    if opset is None:
        return DEFAULT
    if not isinstance(opset, int) or isinstance(opset, bool) or opset not in OPSETS:
        raise ArgumentError(f"opset is one of {', '.join(map(str, OPSETS))}, or None for {DEFAULT}; got {opset!r}")
    return opset
