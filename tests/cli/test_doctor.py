"""fastloaa doctor: facts about this machine, and a test that can fail."""

import importlib.metadata
import json
import platform

import pytest
import soundfile
import timm
import torch
from typer.testing import CliRunner

from fastloaa import LoAA
from fastloaa.cli import app, doctor


def test_report() -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["python"] == platform.python_version()
    assert report["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert report["timm"] == timm.__version__
    assert report["libsndfile"] == soundfile.__libsndfile_version__
    assert report["cuda"].startswith("none") is not torch.cuda.is_available()
    assert report["self-test"].startswith("passed: backends differ by ")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    layer = LoAA(768, 36, freq_bins=8, prefix_tokens=2, device=device)
    assert report["loaa backend"] == str(layer.explain(torch.empty(1, 258, 768, device=device)))


def test_table() -> None:
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0
    names = [line.split("  ")[0] for line in result.stdout.splitlines()]
    assert names[:3] == ["fastloaa", "python", "torch"]
    assert {"onnxruntime", "cuda", "loaa backend", "espeak-ng", "self-test"} <= set(names)


def test_optional_parts_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    there = importlib.metadata.version
    monkeypatch.setattr(doctor, "version", lambda package: there(package if package == "fastloaa" else "not-there"))
    report = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert "pip install 'fastloaa[onnx]'" in report["onnxruntime"]
    assert "pip install 'fastloaa[words]'" in report["espeak-ng"]
    assert report["triton"] is None


def test_a_failed_self_test_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = LoAA.forward

    def off(self: LoAA, *inputs: torch.Tensor) -> torch.Tensor:
        return forward(self, *inputs) * (1 if self.backend == "reference" else 1.01)

    monkeypatch.setattr(LoAA, "forward", off)
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "FAILED: backends differ by " in result.stdout
