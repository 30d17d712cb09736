"""fastloaa export: from a run's folder to an ONNX file, and one line for what is wrong."""

import re
from pathlib import Path

import pytest
import soundfile
import torch
from click.testing import Result
from small import SMALL, small_ast, wake_adapters
from typer.testing import CliRunner

from fastloaa import AST, adapt, save_adapter
from fastloaa.audio import load_audio
from fastloaa.cli import app
from fastloaa.export import Classifier
from fastloaa.export.verify import verify
from fastloaa.training import Recipe

SHALLOW = SMALL | {"depth": 1}
LABELS = ("dog", "rain", "saw", "sea", "clock")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def trained(tmp_path: Path) -> tuple[AST, Path]:
    """What a finished run leaves: its recipe and its adapters, beside the backbone they were trained on."""
    model = small_ast(labels=LABELS, backbone_options=SHALLOW)
    model.save(tmp_path / "backbone.safetensors")
    recipe = Recipe(
        data="sounds",
        method="loaa",
        method_options={"attn": "time", "ffn": "freq", "bottleneck": 4},
        backbone="deit_tiny_distilled_patch16_224",
        backbone_options=SHALLOW,
        weights=str(tmp_path / "backbone.safetensors"),
    )
    recipe.save(tmp_path / "run" / "recipe.yaml")
    adapt(model, "time", "freq", bottleneck=4)
    wake_adapters(model)
    save_adapter(model, tmp_path / "run" / "adapter.safetensors")
    return model, tmp_path / "run"


@torch.no_grad()
def test_writes_a_file_that_answers_as_the_run_does(trained: tuple[AST, Path], tmp_path: Path) -> None:
    model, folder = trained
    path = tmp_path / "out" / "model.onnx"
    result = run("export", folder, path)
    assert result.exit_code == 0, result.output
    size, difference = result.stdout.splitlines()
    assert size.startswith(f"{path}: {path.stat().st_size / 1e6:.1f} MB, opset 20, made in ")
    found = re.fullmatch(
        r"largest difference from PyTorch: (\S+) \(onnxruntime on the CPU, batches of 1, 2, 3, 17\)", difference
    )
    assert found
    assert 0 < float(found[1]) < 1e-5

    verify(path, model)
    soundfile.write(tmp_path / "noise.wav", torch.randn(12_000).numpy() * 0.1, 16000)
    (prediction,) = Classifier(path).classify([tmp_path / "noise.wav"], top=1)
    expected = model(model.front_end(load_audio(tmp_path / "noise.wav")[None]))[0]
    assert prediction.labels == (LABELS[expected.argmax()],)


def test_log_mel_and_weights_that_have_moved(trained: tuple[AST, Path], tmp_path: Path) -> None:
    model, folder = trained
    moved = (tmp_path / "backbone.safetensors").rename(tmp_path / "moved.safetensors")
    assert run("export", folder, tmp_path / "model.onnx").exit_code == 2
    result = run("export", folder, tmp_path / "model.onnx", "--log-mel", "--weights", moved)
    assert result.exit_code == 0, result.output
    assert Classifier(tmp_path / "model.onnx").metadata.input == "log_mel"
    verify(tmp_path / "model.onnx", model)


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    result = run("export", tmp_path, tmp_path / "model.onnx")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {tmp_path}: no recipe.yaml in it")
    assert len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_predict_says_in_one_line_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("not a model")
    soundfile.write(tmp_path / "noise.wav", torch.randn(12_000).numpy() * 0.1, 16000)
    for model, sound, complaint in (
        ("model.onnx", "*.ogg", "*.ogg: no file matches"),
        ("model.onnx", "noise.wav", "model.onnx: onnxruntime cannot open it"),
        ("none.onnx", "noise.wav", "none.onnx: no such file"),
    ):
        result = run("predict", tmp_path / model, tmp_path / sound)
        assert result.exit_code == 2
        assert result.stderr.startswith(f"error: {tmp_path}/{complaint}")
        assert len(result.stderr.splitlines()) == 1
