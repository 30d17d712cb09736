"""Which errors are the library's own, and which of others mean the user's machine."""

import importlib
import pkgutil
from collections.abc import Callable

import numpy as np
import pytest
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import RuntimeException

import fastloaa
import fastloaa.export
from fastloaa import AST, LoAA, TokenGrid, adapt, save_adapter
from fastloaa.audio import FrontEnd, LogMel, SpecAugment
from fastloaa.data import DataError
from fastloaa.errors import ArgumentError, ArgumentTypeError, FastloaaError, user_line
from fastloaa.export import merge, to_onnx
from fastloaa.training import Recipe
from helpers.small import small_ast


@pytest.mark.parametrize(("kind", "base"), [(ArgumentError, ValueError), (ArgumentTypeError, TypeError)])
def test_refusals_are_also_pythons_own_kind(kind: type[Exception], base: type[Exception]) -> None:
    assert issubclass(kind, FastloaaError)
    assert issubclass(kind, base)
    assert fastloaa.FastloaaError is FastloaaError


OUT_OF_MEMORY = [
    MemoryError(),
    MemoryError("Unable to allocate 8.00 PiB for an array"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of ..."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to ..."),
    RuntimeException("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer"),
    RuntimeError("std::bad_alloc"),
    RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
                 "  File ...\nRuntimeError: DefaultCPUAllocator: can't allocate memory\n"),
]  # fmt: skip


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=range(len(OUT_OF_MEMORY)))
def test_memory_is_the_users(error: Exception) -> None:
    line = user_line(error)
    assert line is not None
    assert line.startswith("out of memory: ")
    assert line.endswith("; a smaller batch size takes less, so do shorter clips")
    assert "Traceback" not in line


@pytest.mark.parametrize("allocate", [lambda: torch.empty(1 << 60, dtype=torch.uint8), lambda: np.empty(1 << 56)])
def test_memory_of_the_libraries_at_hand(allocate: Callable[[], object]) -> None:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        allocate()
    assert (user_line(caught.value) or "").startswith("out of memory: ")


@pytest.mark.parametrize(
    "text",
    [
        "DataLoader worker (pid 4711) is killed by signal: Killed. ",
        "DataLoader worker (pid(s) 4711, 4712) exited unexpectedly",
        "unable to write to file </torch_4711_1_0>: No space left on device (28)",
        "unable to mmap 128 bytes from file </torch_4711_1_0>: Cannot allocate memory (12)",
    ],
)
def test_workers_that_the_system_ended(text: str) -> None:
    line = user_line(RuntimeError(text))
    assert line is not None
    assert "memory" in line


def test_an_error_of_a_worker_is_its_last_line() -> None:
    text = (
        "Caught DataError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "loader.py", line 1, in fetch\nfastloaa.data.clips.DataError: x.h5: needs h5py; pip install it\n'
    )
    assert user_line(DataError(text)) == "x.h5: needs h5py; pip install it"


@pytest.mark.parametrize(
    "bug",
    [
        ValueError("bad"),
        TypeError("bad"),
        KeyError("paper"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        AttributeError("x"),
        RuntimeError("Caught KeyError in DataLoader worker process 0.\nOriginal Traceback ...\nKeyError: 'out'\n"),
    ],
)
def test_bugs_are_no_lines(bug: Exception) -> None:
    assert user_line(bug) is None


REFUSALS: dict[str, Callable[[], object]] = {
    "a size below one": lambda: LoAA(0, 4, freq_bins=8),
    "an unknown kernel": lambda: LoAA(8, 4, "both", freq_bins=8),  # type: ignore[arg-type]
    "an even kernel": lambda: LoAA(8, 4, (2, 1), freq_bins=8),
    "an empty grid": lambda: TokenGrid(0, 4),
    "a grid that does not fit": lambda: TokenGrid.from_spectrogram(8, 8, 16),
    "tokens without a batch": lambda: LoAA(8, 4, freq_bins=2)(torch.zeros(4, 8)),
    "tokens off the grid": lambda: LoAA(8, 4, freq_bins=3)(torch.zeros(1, 4, 8)),
    "a model without blocks": lambda: adapt(torch.nn.Linear(2, 2)),
    "a model adapted twice": lambda: adapt(adapt(small_ast())),
    "a model without adapters": lambda: save_adapter(small_ast(), "never.safetensors"),
    "no classes": lambda: AST(0),
    "too few labels": lambda: AST(3, labels=["a"]),
    "a backbone of another kind": lambda: AST(2, backbone="resnet18"),
    "log-mel of another size": lambda: small_ast()(torch.zeros(1, 3, 3)),
    "a sample rate of zero": lambda: LogMel(sample_rate=0),
    "no frames": lambda: FrontEnd(0),
    "a negative mask": lambda: SpecAugment(-1, 0),
    "an unknown precision": lambda: to_onnx(small_ast(), "never.onnx", precision="fp8"),  # type: ignore[arg-type]
    "a recipe out of range": lambda: Recipe(data="x", epochs=0),
    "nothing to average": lambda: fastloaa.average([]),
    "merging what is plain": lambda: merge(small_ast()),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_refused_is_told_from_a_bug(name: str) -> None:
    with pytest.raises(FastloaaError) as caught:
        REFUSALS[name]()
    assert isinstance(caught.value, ValueError | TypeError)
    assert user_line(caught.value)


def test_every_public_error_has_the_one_base() -> None:
    for package in (fastloaa, fastloaa.export):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.startswith(("fastloaa.kernels", "fastloaa.cli.__main__")):
                for name, value in vars(importlib.import_module(found.name)).items():
                    is_error = isinstance(value, type) and issubclass(value, Exception)
                    if (
                        is_error
                        and not issubclass(value, Warning)
                        and value.__module__.startswith("fastloaa.")
                        and not name.startswith("_")
                    ):
                        assert issubclass(value, FastloaaError), value
