"""Examples that a person starts from: LoAA in a loop of one's own, in a notebook, and for three tasks at once."""

import difflib
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import timm
import torch

from fastloaa import LoAA, load_adapter
from helpers.small import SMALL
from helpers.tone_set import write_tones

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("tones") / "sounds")


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(EXAMPLES)
    return __import__(name)


def test_five_lines_swap_loaa_in(sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = [(EXAMPLES / f"{name}.py").read_text().split('"""', 2)[2] for name in ("swap_before", "swap")]
    changes = difflib.ndiff(*(text.splitlines() for text in code))
    assert len([line for line in changes if line[0] == "+" and line[2:].strip()]) <= 5
    options: dict[str, Any] = {"name": "vit_tiny_patch16_224", "pretrained": False, **SMALL}
    for name in ("swap_before", "swap"):
        module = example(name, monkeypatch)
        monkeypatch.setattr(module, "FRAMES", 32)
        model = module.main(sounds, tmp_path / name, epochs=1, **options)
    assert all(m.up.weight.abs().max() > 0 for m in model.modules() if isinstance(m, LoAA))
    torch.manual_seed(0)
    fresh = timm.create_model("vit_tiny_patch16_224", img_size=(128, 32), in_chans=1, num_classes=3, **SMALL)
    x = torch.randn(2, 1, 128, 32)
    with torch.no_grad():
        assert torch.equal(load_adapter(fresh, tmp_path / "swap").eval()(x), model.eval()(x))


def test_three_tasks_share_a_backbone(sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which pitch, of all or of two; and one that has the labels the other way round."""
    folders = [tmp_path / name for name in ("pitch", "low", "swapped")]
    for folder, names in zip(folders, ({}, {"3000Hz": None}, {"300Hz": "3000Hz", "3000Hz": "300Hz"}), strict=True):
        for label in ("300Hz", "1000Hz", "3000Hz"):
            if (name := dict(names).get(label, label)) is not None:
                shutil.copytree(sounds / label, folder / name)
    found = example("three_tasks", monkeypatch).main(str(tmp_path / "out"), *map(str, folders), frames=32, epochs=10)
    assert found.keys() == {"pitch", "low", "swapped"}
    assert min(found.values()) > 0.8, found


def test_the_notebook_runs(sounds: Path, tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="needs pip install nbclient ipykernel")
    pytest.importorskip("ipykernel", reason="needs pip install nbclient ipykernel")
    nbformat = pytest.importorskip("nbformat", reason="needs pip install nbclient ipykernel")
    notebook = nbformat.read(EXAMPLES / "vit_on_sounds.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # none are kept
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    small = {"sounds": str(sounds), "name": "vit_tiny_patch16_224", "options": SMALL, "frames": 32, "epochs": 4}
    assert all(name in parameters.source for name in small)
    parameters.source = "\n".join(f"{name} = {value!r}" for name, value in small.items())
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "3 classes; clips: " in said
    assert " parameters train" in said
    assert float(said.partition("accuracy ")[2].partition("%")[0]) > 50
    assert (tmp_path / "adapter.safetensors").is_file()
