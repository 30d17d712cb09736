"""What `import fastloaa` and the command line load: nothing before it is used. Each in a process of its own."""

import subprocess
import sys
from types import ModuleType

import pytest

import fastloaa
import fastloaa.export

HEAVY = "torch torch._dynamo torchvision torchaudio triton timm numpy matplotlib soundfile onnx onnxruntime accelerate"


def loaded(code: str) -> set[str]:
    """Which of the heavy packages a new Python has imported after some code, which prints nothing to stderr."""
    script = f"import sys\n{code}\nprint(*(name for name in {HEAVY.split()} if name in sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def test_the_package_alone_loads_nothing() -> None:
    assert loaded("import fastloaa; dir(fastloaa); fastloaa.__version__; fastloaa.FastloaaError") == set()


@pytest.mark.parametrize("arguments", ["--help", "train --help", "predict --help", "--version"])
def test_help_loads_nothing(arguments: str) -> None:
    code = f"sys.argv = ['fastloaa', *{arguments.split()}]\nfrom fastloaa.cli import main\n"
    assert loaded(code + "try: main()\nexcept SystemExit as end: assert not end.code") == set()


def test_an_adapter_needs_no_collection_of_models() -> None:
    """Nor PyTorch's compiler; it may need Triton, where there is one."""
    found = loaded("from fastloaa import LoAA, NormedFrom, TokenGrid, loaa, norm_once")
    assert "torch" in found
    assert found <= {"torch", "numpy", "triton"}


@pytest.mark.parametrize(
    "code",
    [
        "from fastloaa.export import Classifier, Prediction, write_bundle",
        "from fastloaa.export.serving import app",
        "from typer.testing import CliRunner\nfrom fastloaa.cli import app\n"
        "assert 'no such file' in CliRunner().invoke(app, ['predict', 'none.onnx', 'none.wav']).output",
    ],
    ids=["Classifier", "serving", "predict"],
)
def test_serving_needs_no_models(code: str) -> None:
    """Nor the packages that made the file."""
    assert loaded(code) <= {"torch", "torchaudio", "numpy", "soundfile", "onnxruntime"}


def test_names_are_there_whatever_was_imported_first() -> None:
    check = "for name in package.__all__: assert callable(getattr(package, name)), name"
    packages = "import fastloaa, fastloaa.export, fastloaa.training"
    assert "timm" in loaded(f"{packages}\nfor package in (fastloaa, fastloaa.export):\n    {check}")


@pytest.mark.parametrize("package", [fastloaa, fastloaa.export], ids=lambda package: package.__name__)
def test_every_public_name_is_its_own(package: ModuleType) -> None:
    names: dict[str, object] = {}
    exec(f"from {package.__name__} import *", names)
    assert set(package.__all__) <= names.keys() & set(dir(package))
    for name in package.__all__:
        assert names[name] is getattr(package, name)
        assert not isinstance(names[name], ModuleType)
        assert names[name].__name__ == name  # type: ignore[attr-defined]


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'fastloaa' has no attribute 'Loaa'"):
        fastloaa.Loaa  # noqa: B018
