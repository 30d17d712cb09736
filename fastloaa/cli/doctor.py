"""`fastloaa doctor`: what this machine has, and whether it works."""

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

SELF_TEST_TOLERANCE = 1e-5
"""Largest difference between the backends in float32: a hundred times what rounding leaves."""


def doctor(as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for scripts.")] = False) -> None:
    """Show versions, devices and optional parts, and run a one-second test of the adapter; exit code 1 if it fails.

    Example: fastloaa doctor
    """
    difference = self_test()
    passed = difference <= SELF_TEST_TOLERANCE
    report = {
        "fastloaa": version("fastloaa"),
        "python": platform.python_version(),
        "torch": _installed("torch"),
        "triton": _triton(),
        "timm": _installed("timm"),
        "onnxruntime": _onnxruntime(),
        "cuda": _cuda(),
        "loaa backend": _backend(),
        "libsndfile": _libsndfile(),
        "espeak-ng": _installed("espeakng-loader") or "not installed; pip install 'fastloaa[words]'",
        "self-test": f"{'passed' if passed else 'FAILED'}: backends differ by {difference:.1e}",
    }
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        width = max(map(len, report))
        for name, value in report.items():
            print(f"{name:<{width}}  {value or 'not installed'}")
    if not passed:
        raise typer.Exit(1)


def self_test() -> float:
    """Largest difference between the backend that "auto" picks and the reference, on a tiny adapter's forward pass."""
    import torch

    from fastloaa import LoAA

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        x = torch.randn(2, 2 + 8 * 4, 32).to(device)
        chosen = LoAA(32, 8, "time", freq_bins=8, prefix_tokens=2).to(device)
        torch.nn.init.normal_(chosen.up.weight, std=0.1)  # zero at the start, which would hide any difference
        reference = LoAA(32, 8, "time", freq_bins=8, prefix_tokens=2, backend="reference").to(device)
        reference.load_state_dict(chosen.state_dict())
        return (chosen(x) - reference(x)).abs().max().item()


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _triton() -> str | None:
    """Its version, and why it is not used where it is not; None where there is none."""
    from fastloaa.ops.triton_version import NOT_COMPILED

    there = _installed("triton")
    return there and (f"{there} (not used: {NOT_COMPILED})" if NOT_COMPILED else there)


def _onnxruntime() -> str:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise
        return "not installed; pip install 'fastloaa[onnx]' or, for NVIDIA GPUs, 'fastloaa[onnx-gpu]'"
    except ImportError as error:  # one of its libraries is missing or of another version
        return f"does not load: {error}"
    return f"{onnxruntime.__version__} ({', '.join(onnxruntime.get_available_providers())})"


def _cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        return f"none: {'torch was built without it' if torch.version.cuda is None else 'no device or driver'}"
    properties = torch.cuda.get_device_properties(0)
    memory = properties.total_memory / 2**30
    return f"{properties.name}, capability {properties.major}.{properties.minor}, {memory:.0f} GiB"


def _backend() -> str:
    """What "auto" picks for the paper's adapter in training."""
    import torch

    from fastloaa import LoAA

    device = "cuda" if torch.cuda.is_available() else "cpu"
    layer = LoAA(768, 36, "time", freq_bins=8, prefix_tokens=2, device=device)
    return str(layer.explain(torch.empty(1, 2 + 8 * 32, 768, device=device)))


def _libsndfile() -> str:
    import soundfile

    return soundfile.__libsndfile_version__
