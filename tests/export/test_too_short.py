"""Recordings that are shorter than one analysis window: one line, by whatever they are given to."""

import json
import runpy
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import soundfile
import torch
import typer
from typer.testing import CliRunner

from fastloaa.audio import AudioError, EpicSoundsFrontEnd
from fastloaa.cli.predict import predict
from fastloaa.errors import ArgumentError
from fastloaa.export import Classifier
from fastloaa.files import FileError
from helpers.bundles import program
from helpers.onnx_files import write_listener
from helpers.sounds import encoded, noise

LABELS = ("wren", "crow", "owl")
LINE = "399 samples at 16000 Hz; the model looks at 400 and more"
app = typer.Typer()
app.command()(predict)


@pytest.fixture(scope="module", params=[None, 400], ids=["older file", "file"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose metadata say how long a recording is at least, and one that says so by its front end alone."""
    return write_listener(tmp_path_factory.mktemp("model") / "model.onnx", LABELS, shortest=request.param)


@pytest.fixture
def sounds(tmp_path: Path) -> list[Path]:
    """One that is too short, one that just is not, and one whose samples are enough at its own rate alone."""
    for name, samples, rate in (("short", 399, 16000), ("enough", 400, 16000), ("high", 1000, 48000)):
        soundfile.write(tmp_path / f"{name}.wav", noise(samples), rate)
    return [tmp_path / f"{name}.wav" for name in ("short", "enough", "high")]


def test_files(model: Path, sounds: list[Path]) -> None:
    """Others are answered for, in threads as well."""
    classifier = Classifier(model)
    for workers in (0, 2):
        short, enough, high = classifier.classify(sounds, workers=workers)
        assert (short.error, short.labels) == (f"{sounds[0]}: {LINE}", ())
        assert (enough.error, enough.seconds, len(enough.labels)) == (None, 0.025, 3)
        assert high.error == f"{sounds[2]}: 334 samples at 16000 Hz; the model looks at 400 and more"
    with pytest.raises(AudioError) as refused:
        list(classifier.timeline(sounds[0]))
    assert str(refused.value) == f"{sounds[0]}: {LINE}"
    assert len(list(classifier.timeline(sounds[1]))) == 1


def test_samples(model: Path) -> None:
    """As one array, in blocks, and as a batch."""
    classifier, samples = Classifier(model), torch.from_numpy(noise(400)).float()
    for given in (samples[1:], [samples[:200], samples[201:]], iter(samples[1:].split(7))):
        with pytest.raises(ArgumentError, match=f"^{LINE}$"):
            list(classifier.timeline(given))
    (window,) = classifier.timeline([samples[:200], samples[200:]])
    with pytest.raises(ArgumentError, match=f"^{LINE}$"):
        classifier.probabilities(samples[None, 1:].repeat(3, 1))
    np.testing.assert_allclose(classifier.probabilities(samples[None])[0], window.probabilities, atol=1e-6)


def test_the_end_of_a_longer_recording_is_no_short_one(model: Path) -> None:
    windows = list(Classifier(model).timeline(torch.from_numpy(noise(8001))))
    assert [round(window.start * 16000) for window in windows] == [0, 1]


def test_the_command(model: Path, sounds: list[Path], tmp_path: Path) -> None:
    """In tables a row of its own."""
    runner = CliRunner()
    for more in (["--out", str(tmp_path / "a.jsonl")], ["--json"], ["--timeline", "--json"]):
        result = runner.invoke(app, [str(model), *map(str, sounds), *more])
        assert result.exit_code == 1
        text = (tmp_path / "a.jsonl").read_text() if more[0] == "--out" else result.stdout
        short, enough, high = map(json.loads, text.splitlines())
        assert short == {"file": str(sounds[0]), "error": f"{sounds[0]}: {LINE}"}
        assert len(enough["top"]) == 3
        assert "334 samples" in high["error"]
    for mode in ([], ["--stream"]):  # a wav from standard input
        content = encoded(noise(399), 16000, "WAV")
        result = runner.invoke(app, [str(model), "-", *mode], input=content)
        assert result.exit_code == 1
        assert f"-: {LINE}" in result.output


def test_a_window_of_few_frames_is_enough() -> None:
    """One of an analysis window of EPIC-SOUNDS is longer than what one or two frames hear."""
    for frames in (1, 2, 3):
        front_end = EpicSoundsFrontEnd(frames)
        assert 1 <= front_end.shortest <= front_end.samples
    assert EpicSoundsFrontEnd(3).shortest == 240


def test_the_metadata_go_before_the_front_end(tmp_path: Path) -> None:
    classifier = Classifier(write_listener(tmp_path / "model.onnx", LABELS, shortest=500))
    with pytest.raises(ArgumentError, match="499 samples at 16000 Hz; the model looks at 500 and more"):
        list(classifier.timeline(noise(499)))
    assert len(list(classifier.timeline(noise(500)))) == 1


@pytest.mark.parametrize("shortest", [0, 8001])
def test_metadata_that_would_refuse_all(shortest: int, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"model\.onnx: its metadata are damaged \(shortest is from 1 to samples"):
        Classifier(write_listener(tmp_path / "model.onnx", LABELS, shortest=shortest))


def test_the_bundles_python(bundle: Path, sounds: list[Path]) -> None:
    """The very lines of `Classifier`."""
    command = [sys.executable, str(bundle / "classify.py"), *map(str, sounds)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    classifier = Classifier(bundle / "model.onnx")
    expected = [answer.error for answer in classifier.classify(sounds) if answer.error]
    assert classifier.metadata.shortest == 400
    assert (result.returncode, result.stderr.splitlines()) == (1, expected)
    assert len(expected) == 2
    assert {line.split("\t")[0] for line in result.stdout.splitlines()} == {str(sounds[1])}


def test_the_bundles_javascript(bundle: Path) -> None:
    """What the page and the client for Node.js ask before they hear anything."""
    code = f"""
import {{ readFileSync }} from "node:fs";
import {{ checked }} from "{(bundle / "web" / "windows.js").as_uri()}";
const about = JSON.parse(readFileSync({json.dumps(str(bundle / "model.json"))}, "utf8"));
console.log(checked(new Float32Array(400), about).length);
try {{ checked(new Float32Array(399), about); }} catch ({{ message }}) {{ console.log(message); }}
"""
    command = [program("node"), "--no-warnings", "--input-type=module", "--eval", code]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown.splitlines() == ["400", f"{LINE}."]


class Response:
    """Of Triton's Python backend."""

    def __init__(self, tensors: list[Any] | None = None, error: str | None = None) -> None:
        self.tensors, self.error = tensors, error


def test_tritons_python_backend(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is too short has an error of its own, those that come with it have their answers."""
    backend = types.ModuleType("triton_python_backend_utils")
    vars(backend).update(
        get_input_tensor_by_name=lambda request, name: types.SimpleNamespace(as_numpy=lambda: request[name]),
        InferenceResponse=Response,
        TritonError=str,
        Tensor=lambda name, values: (name, values),
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", backend)
    source = bundle / "triton-python" / "my_sounds" / "1" / "model.py"
    model = runpy.run_path(str(source))["TritonPythonModel"]()
    folder = str(bundle / "triton-python" / "my_sounds")
    model.initialize({"model_repository": folder, "model_instance_kind": "CPU", "model_instance_device_id": "0"})
    clips = [noise(samples, seed=samples)[None].astype(np.float32) for samples in (400, 399, 399, 5000)]
    responses = model.execute([{"waveform": clip} for clip in clips])
    assert [response.error for response in responses] == [None, LINE, LINE, None]
    session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    for clip, response in zip(clips, responses, strict=True):
        if response.error is None:
            expected = session.run(["logits", "probabilities"], {"waveform": clip})
            for (name, given), wanted in zip(response.tensors, expected, strict=True):
                np.testing.assert_allclose(given, wanted, atol=1e-5, err_msg=name)
