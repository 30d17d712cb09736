"""A bundle: what its README promises works, without PyTorch and without this library."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch
from small import SMALL, small_ast

from fastloaa.export import Classifier, to_onnx, write_bundle
from fastloaa.files import FileError

LABELS = ("dog", "Säge", "a, b", "sea waves", 'a "quoted" one')


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("serving") / "my sounds"
    to_onnx(small_ast(labels=LABELS, backbone_options=SMALL | {"depth": 1}), folder / "model.onnx")
    write_bundle(folder / "model.onnx", folder)
    return folder


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    time = np.arange(9000) / 16000
    stereo = 0.3 * np.stack((np.sin(2000 * time), np.sin(5000 * time)), axis=1)
    soundfile.write(tmp_path / "sound.wav", stereo, 16000)
    return tmp_path / "sound.wav"


def test_what_is_in_it(bundle: Path) -> None:
    files = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    assert files == {
        "README.md",
        "classify.cpp",
        "classify.py",
        "labels.txt",
        "model.onnx",
        "triton/my_sounds/1/model.onnx",
        "triton/my_sounds/config.pbtxt",
        "triton/my_sounds/labels.txt",
    }
    for name in ("labels.txt", "triton/my_sounds/labels.txt"):
        assert (bundle / name).read_text(encoding="utf-8").splitlines() == list(LABELS)
    assert (bundle / "model.onnx").samefile(bundle / "triton/my_sounds/1/model.onnx")  # not twice on the disk
    readme = (bundle / "README.md").read_text(encoding="utf-8")
    for language, name in (("python", "classify.py"), ("cpp", "classify.cpp")):
        assert f"```{language}\n{(bundle / name).read_text()}```" in readme
    assert not re.search(r"\$[a-z_]*(name|rate|classes|version|precision|seconds)\b", readme)


def test_python_needs_nothing_of_ours(bundle: Path, sound: Path) -> None:
    """classify.py where torch, fastloaa and onnx cannot be imported."""
    blocked = "import sys; sys.modules.update(dict.fromkeys(['torch', 'fastloaa', 'onnx', 'torchaudio']))"
    code = f"{blocked}; sys.argv[1:] = [{str(sound)!r}]; exec(open('classify.py').read())"
    result = subprocess.run([sys.executable, "-c", code], cwd=bundle, capture_output=True, check=True)
    rows = [line.split("\t") for line in result.stdout.decode().splitlines()]
    (expected,) = Classifier(bundle / "model.onnx").classify([sound])
    assert [label for _, label, _ in rows] == list(expected.labels)
    assert [float(share) for *_, share in rows] == pytest.approx(expected.probabilities, abs=6e-5)
    assert {path for path, *_ in rows} == {str(sound)}


def test_python_names_another_rate(bundle: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "slow.wav", np.zeros(100), 8000)
    arguments = [sys.executable, "classify.py", str(tmp_path / "slow.wav")]
    result = subprocess.run(arguments, cwd=bundle, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith(f"{tmp_path / 'slow.wav'} has 8000 Hz, expected 16000: ffmpeg ")


def test_curl_sends_the_samples(bundle: Path, tmp_path: Path) -> None:
    """With stand-ins for ffmpeg, which gives raw samples, and for curl, which would need a server."""
    samples = np.random.default_rng(0).normal(size=1000).astype("<f4")
    samples.tofile(tmp_path / "samples.f32")
    (script,) = re.findall(r"```bash\n(.*?)```", (bundle / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    stand_ins = 'ffmpeg() { cat samples.f32; }\ncurl() { echo "$@"; }\n'
    result = subprocess.run(
        ["bash", "-euc", stand_ins + script], cwd=tmp_path, capture_output=True, text=True, check=True, env=os.environ
    )
    assert result.stdout == "-s localhost:8000/v2/models/my_sounds/infer -d @request.json\n"
    request = json.loads((tmp_path / "request.json").read_text())
    (tensor,) = request["inputs"]
    assert (tensor["name"], tensor["shape"], tensor["datatype"]) == ("waveform", [1, 1000], "FP32")
    np.testing.assert_allclose(np.array(tensor["data"], np.float32), samples, rtol=1e-6)
    assert request["outputs"] == [{"name": "probabilities", "parameters": {"classification": 3}}]


def test_triton_is_told_what_the_model_says(bundle: Path) -> None:
    """Names, types and shapes without the batch, as Triton wants them of a model that batches."""
    config = (bundle / "triton/my_sounds/config.pbtxt").read_text()
    session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    found = re.findall(r'name: "(\w+)" data_type: TYPE_FP32 dims: \[ (-?\d+) \]', config)
    ports = [*session.get_inputs(), *session.get_outputs()]
    assert {port.type for port in ports} == {"tensor(float)"}
    assert {port.shape[0] for port in ports} == {"batch"}
    sizes = [port.shape[1] if isinstance(port.shape[1], int) else -1 for port in ports]
    assert found == [(port.name, str(size)) for port, size in zip(ports, sizes, strict=True)]
    assert re.search(r'^name: "my_sounds"$', config, re.MULTILINE)
    assert re.search(r'^backend: "onnxruntime"$', config, re.MULTILINE)
    assert re.search(r"^max_batch_size: [1-9]\d*$", config, re.MULTILINE)
    assert re.search(r"^dynamic_batching \{.*\}$", config, re.MULTILINE)
    assert config.count("{") == config.count("}")


def test_again_and_from_elsewhere(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("mine")
    for _ in range(2):
        write_bundle(bundle / "model.onnx", tmp_path / "b")
    assert (tmp_path / "b" / "model.onnx").read_bytes() == (bundle / "model.onnx").read_bytes()
    assert (tmp_path / "b" / "notes.txt").read_text() == "mine"


def test_without_links(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    write_bundle(bundle / "model.onnx", tmp_path / "b")
    assert (tmp_path / "b/triton/b/1/model.onnx").read_bytes() == (bundle / "model.onnx").read_bytes()


def test_what_cannot_be_served(bundle: Path, tmp_path: Path) -> None:
    for name, changes, complaint in (
        ("mel.onnx", {"input": "log_mel"}, r"mel\.onnx: reads log_mel; servers want waveforms"),
        ("torn.onnx", {"labels": '["a\\nb", "c"]'}, r"torn\.onnx: a label holds a line break"),
    ):
        proto = onnx.load(bundle / "model.onnx")
        props = {prop.key: prop.value for prop in proto.metadata_props}
        onnx.helper.set_model_props(proto, props | changes)
        onnx.save(proto, tmp_path / name)
        with pytest.raises(FileError, match=complaint):
            write_bundle(tmp_path / name, tmp_path / "b")
    assert not (tmp_path / "b").exists()
