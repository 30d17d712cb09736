"""What works without the extras, and what is said where one is missing: in processes that find no package of theirs."""

import subprocess
import sys
from importlib.metadata import files
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

from fastloaa.extras import EXTRAS, MissingPackageError, installed, needs, optional
from helpers.project import PROJECT, ROOT

THEIRS = sorted({package for packages in EXTRAS.values() for package in packages} - {"yaml"})  # which timm has too
ALONE = f"import sys; sys.modules.update(dict.fromkeys({THEIRS}))"  # Python's own way to say that there are none

WORKS = """
import torch
from fastloaa import LoAA, adapt, load_adapter, save_adapter
from fastloaa.audio import FRONT_ENDS, LogMel
from fastloaa.export import load_merged, merge, save_merged
from helpers.small import small_ast, wake_adapters

layer, x = LoAA(32, 4, freq_bins=8, prefix_tokens=2), torch.randn(2, 2 + 8 * 4, 32)
assert layer(x, x, x).shape == x.shape
assert LogMel()(torch.randn(1, 16000)).shape == (1, 98, 128)
for kind, front_end in FRONT_ENDS.items():
    clips = torch.randn((2, 9000) if front_end.reads == "waveform" else (2, 50, 128))
    plain, adapted = small_ast(front_end=kind), adapt(small_ast(front_end=kind), bottleneck=4)
    adapted(adapted.front_end(clips)).sum().backward()
wake_adapters(adapted)
plain.backbone.load_state_dict(adapted.backbone.state_dict(), strict=False)
save_adapter(adapted, sys.argv[1] + "/adapter.safetensors")
again = load_adapter(plain, sys.argv[1] + "/adapter.safetensors").eval()
features = again.front_end(clips)
expected = adapted.eval()(features)
save_merged(merge(again), sys.argv[1] + "/merged.safetensors")
for model in (again, load_merged(sys.argv[1] + "/merged.safetensors").eval()):
    torch.testing.assert_close(model(features), expected, rtol=1e-4, atol=1e-4)
"""

REFUSED = {
    "from fastloaa.audio import load_audio": "'fastloaa[audio]'",
    "from fastloaa.audio import SpecAugment": "'fastloaa[audio]'",
    "import fastloaa.data": "'fastloaa[audio]'",
    "from fastloaa.export import Classifier": "'fastloaa[audio]'",
    "import fastloaa.training": "'fastloaa[train]'",
    "import fastloaa.cli": "'fastloaa[train]'",
    "import fastloaa.attention.figure": "'fastloaa[train]'",
    "import fastloaa.peft": "'fastloaa[peft]'",
    "from fastloaa.methods import build_method; build_method('lora')": "'fastloaa[peft]'",
    "open_session('model.onnx', [])": "'fastloaa[onnx]', or onnx-gpu instead of onnx for NVIDIA GPUs",
}


def alone(code: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    start = f"{ALONE}; sys.path.insert(0, {str(ROOT / 'tests')!r})\n"
    command = [sys.executable, "-c", start + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_core_works_alone(tmp_path: Path) -> None:
    done = alone(WORKS, tmp_path)
    assert done.returncode == 0, done.stderr


def test_one_line_names_the_extra() -> None:
    attempts = "".join(
        f"""
try:
    {code}
    print("worked")
except MissingPackageError as error:
    print(error)
"""
        for code in REFUSED
    )
    imports = "from fastloaa.export.onnx_file import open_session\nfrom fastloaa.extras import MissingPackageError\n"
    done = alone(f"{imports}{attempts}")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(REFUSED)
    for line, advice in zip(lines, REFUSED.values(), strict=True):
        assert line.endswith(f"not installed; pip install {advice}")


def test_the_program_without_its_packages_says_one_line() -> None:
    done = alone("from fastloaa.__main__ import main; sys.argv = ['fastloaa', '--help']; main()")
    assert done.returncode == 1
    assert done.stderr == "error: rich, typer are not installed; pip install 'fastloaa[train]'\n"
    assert PROJECT["project"]["scripts"] == {"fastloaa": "fastloaa.__main__:main"}


def test_extras_bring_what_is_said_of_them() -> None:
    for extra, packages in EXTRAS.items():
        declared = map(Requirement, PROJECT["project"]["optional-dependencies"][extra])
        names = {requirement.name for requirement in declared} - {"fastloaa", "onnxruntime"}
        brought = {file.parts[0].removesuffix(".py") for name in names for file in files(name) or ()}
        assert set(packages) - {"onnxruntime"} <= brought, extra
        assert len(set(packages) - {"onnxruntime"}) == len(names), extra


def test_what_does_not_load_is_said_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "h5py.py").write_text("raise OSError('libhdf5.so: cannot open\\nshared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "h5py", raising=False)
    with pytest.raises(MissingPackageError) as caught:
        optional("h5py")
    assert str(caught.value) == (
        "h5py is installed but does not load (libhdf5.so: cannot open shared object file); pip install 'fastloaa[hdf5]'"
    )


def test_a_folder_of_the_same_name_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_recordings").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not installed("some_recordings")
    with pytest.raises(ImportError, match="some_recordings is not installed"):
        needs("json", "some_recordings")
    assert isinstance(optional("json"), ModuleType)
