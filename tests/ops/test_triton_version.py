"""Triton that is absent, too old, or broken: the first two are reasons, the third an error."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses import FakeTensorMode
from typer.testing import CliRunner

from fastloaa import LoAA
from fastloaa.adapters.widened import Between
from fastloaa.cli import app
from fastloaa.ops import triton_version


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Puts a package triton of the given source before the real one."""

    def put(source: str | None) -> None:
        (tmp_path / "triton").mkdir()
        if source is not None:
            (tmp_path / "triton" / "__init__.py").write_text(source)
        paths = [str(tmp_path)] if source is None else [str(tmp_path), *sys.path]  # a bare folder comes last
        monkeypatch.setattr(sys, "path", paths)
        for name in [name for name in sys.modules if name.split(".")[0] == "triton"]:
            monkeypatch.delitem(sys.modules, name)
        importlib.invalidate_caches()

    return put


def test_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    assert triton_version.obstacle() == "the package triton is not installed"


def test_a_folder_of_that_name_is_no_package(fake) -> None:  # type: ignore[no-untyped-def]
    fake(None)
    assert str(triton_version.obstacle()).startswith("the package triton is not installed (the folder ")


def test_without_the_setuptools_that_it_imports(fake, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    fake("import setuptools")
    monkeypatch.setitem(sys.modules, "setuptools", None)
    assert str(triton_version.obstacle()).endswith("needs setuptools, which is not installed (pip install setuptools)")


@pytest.mark.parametrize("version", ["2.1.0", "3.0.0", "3.1.0", "4.0.0", "unknown"])
def test_versions_that_are_not_used(version: str, fake) -> None:  # type: ignore[no-untyped-def]
    fake(f"__version__ = {version!r}")
    assert triton_version.obstacle() == f"triton {version} is installed, and fastloaa needs triton<4,>=3.2"


@pytest.mark.parametrize("version", ["3.2.0", "3.4.0", "3.6.0", "3.6.0+git9844da95", "3.7.0rc1", "3.10.1.post2"])
def test_versions_that_are(version: str, fake) -> None:  # type: ignore[no-untyped-def]
    fake(f"__version__ = {version!r}")
    assert triton_version.obstacle() is None


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import libtriton_that_is_not_there", ModuleNotFoundError),
        ("from triton import libtriton", ImportError),
        ("import json; json.knobs", AttributeError),
        ("raise ImportError('libcuda.so.1: cannot open shared object file')", ImportError),
        ("raise OSError('GLIBC_2.34 not found')", OSError),
        ("1 / 0", ZeroDivisionError),
        ("def broken(:", SyntaxError),
    ],
)
def test_what_is_broken_inside_is_shown(source: str, error: type[Exception], fake) -> None:  # type: ignore[no-untyped-def]
    fake(source)
    with pytest.raises(error):
        triton_version.obstacle()


def test_everything_else_works_beside_an_old_triton() -> None:
    program = """
import sys, types
import timm, torch  # with the Triton they are made for
old = types.ModuleType("triton")  # without knobs, jit or language
old.__version__ = "3.1.0"
sys.modules["triton"] = old
from fastloaa import LoAA
from fastloaa.ops.functional import BackendError
from fastloaa.adapters.widened import Between
layer, x = LoAA(16, 4, freq_bins=2), torch.randn(1, 4, 16)
assert layer(x).shape == x.shape
between = Between(2, ((0, 0), (0, 1)), "relu", 2, 0, "freq")
assert not between.in_place(torch.randn(1, 4, 8), 4)
try:
    LoAA(16, 4, freq_bins=2, backend="triton")(x)
except BackendError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "triton 3.1.0 is installed, and fastloaa needs triton<4,>=3.2; use backend=" in done.stdout


def test_explain_and_doctor_say_it(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "triton 3.1.0 is installed, and fastloaa needs triton<4,>=3.2"
    monkeypatch.setattr(triton_version, "NOT_COMPILED", reason)
    monkeypatch.setattr("fastloaa.ops.functional.NO_TRITON", reason)
    elsewhere = torch.empty(1, 4, 16, device="meta")  # neither CPU nor CUDA: nothing but Triton would be faster
    assert str(LoAA(16, 4, freq_bins=2).explain(elsewhere)) == f"torch: the fused kernels cannot run: {reason}"
    report = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert report["triton"].endswith(f" (not used: {reason})")


@pytest.mark.parametrize("version", ["3.2.0", "3.3.1", "3.4.0", "3.6.0"])
def test_kernels_are_not_compiled_where_the_compiler_aborts(version: str, fake) -> None:  # type: ignore[no-untyped-def]
    fake(f"__version__ = {version!r}")
    reason = f"triton {version} is installed, and compiling the kernels needs triton>=3.4"
    assert triton_version.compiling_obstacle() == (reason if version < "3.4" else None)


def test_cuda_tensors_then_get_pytorchs_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "triton 3.2.0 is installed, and compiling the kernels needs triton>=3.4"
    for module in ("fastloaa.ops.functional", "fastloaa.adapters.widened"):
        monkeypatch.setattr(f"{module}.NOT_COMPILED", reason)
    layer = LoAA(16, 4, freq_bins=2)
    with FakeTensorMode():
        x, buffer = torch.empty(1, 4, 16, device="cuda"), torch.empty(1, 4, 8, device="cuda")
        assert str(layer.explain(x)) == f"torch: the fused kernels cannot run: {reason}"
        assert not Between(2, ((0, 0), (0, 1)), "relu", 2, 0, "freq").in_place(buffer, 4)
