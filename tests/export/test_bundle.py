"""A bundle: what its README promises works, without PyTorch and without this library."""

import json
import os
import re
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch

from fastloaa.audio import AudioWarning
from fastloaa.export import Classifier, to_onnx, write_bundle
from fastloaa.files import FileError
from helpers.small import SMALL, small_ast
from helpers.sounds import encoded, flac_of_length, noise, wav_with_sizes

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


def classify(bundle: Path, *files: Path) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "classify.py", *map(str, files)]
    return subprocess.run(arguments, cwd=bundle, capture_output=True, text=True, check=False)


def unusable(folder: Path) -> list[Path]:
    """Files that nothing should be answered for."""
    tone = 0.3 * np.sin(2000 * np.arange(9000) / 16000)
    for name, changes in {"nan": {17: np.nan}, "inf": {0: np.inf}, "minus inf": {-1: -np.inf}}.items():
        spoilt = tone.copy()
        for index, value in changes.items():
            spoilt[index] = value
        soundfile.write(folder / f"{name}.wav", spoilt, 16000, subtype="FLOAT")
    for name, subtype in {"none.wav": "PCM_16", "none.flac": "PCM_16", "none.aiff": "PCM_24"}.items():
        soundfile.write(folder / name, np.zeros(0), 16000, subtype)
    for name, subtype in {
        "cut.wav": "PCM_16",
        "cut24.wav": "PCM_24",
        "cut.flac": "PCM_16",
        "cut.aiff": "PCM_16",
    }.items():
        soundfile.write(folder / name, tone, 16000, subtype)
        os.truncate(folder / name, (folder / name).stat().st_size * 2 // 3)
    (folder / "text.wav").write_text("not a sound")
    (folder / "nothing.wav").touch()
    (folder / "folder.wav").mkdir()
    return [*sorted(folder.iterdir()), folder / "nowhere.wav"]


def test_python_refuses_what_predict_refuses(bundle: Path, sound: Path, tmp_path: Path) -> None:
    """In one line each, and goes on with the others."""
    (tmp_path / "bad").mkdir()
    files = unusable(tmp_path / "bad")
    assert all(prediction.error for prediction in Classifier(bundle / "model.onnx").classify(files))
    soundfile.write(tmp_path / "slow.wav", np.zeros(100), 8000)
    result = classify(bundle, *files, tmp_path / "slow.wav", sound)
    assert result.returncode == 1
    assert {line.split("\t")[0] for line in result.stdout.splitlines()} == {str(sound)}
    *complaints, rate = result.stderr.splitlines()
    assert len(complaints) == len(files) == 14
    for file, complaint in zip(files, complaints, strict=True):
        assert complaint.startswith(f"{file}: ")
    for word, files_of_it in (("NaN", 3), ("truncated", 3), ("no samples", 2)):
        assert sum(word in complaint for complaint in complaints) == files_of_it
    assert rate.startswith(f"{tmp_path / 'slow.wav'}: has 8000 Hz, expected 16000: ffmpeg ")


UNKNOWN = 0xFFFFFFFF
UNFINISHED = [(0, 0), (None, 0), (UNKNOWN, 0), (8, 0), (0, UNKNOWN), (0x7FFFF024, 0x7FFFF000), (0, 1000), (0, None)]


def test_python_hears_what_predict_hears_of_odd_headers(bundle: Path, tmp_path: Path) -> None:
    """A recorder that was cut off, a FLAC from a pipe, codecs that only run forwards."""
    sounds = {}
    for number, (riff, data) in enumerate(UNFINISHED):
        for subtype in ("PCM_16", "FLOAT", "GSM610"):
            content = encoded(noise(6000, seed=number), 16000, "WAV", subtype)
            sounds[f"{number}-{subtype}.wav"] = wav_with_sizes(content, riff, data)
    for samples in (700, 1024, 6000):
        content = encoded(noise(samples, channels=2), 16000, "FLAC")
        sounds[f"{samples}.flac"] = flac_of_length(content, 0)
    sounds["vox.wav"] = encoded(noise(6000), 16000, "WAV", "NMS_ADPCM_16")
    tagged = wav_with_sizes(encoded(np.zeros(0), 16000, "WAV"), None, 0) + b"LIST" + struct.pack("<I", 4) + b"INFO"
    sounds["nothing but tags.wav"] = tagged
    for name, content in sounds.items():
        (tmp_path / name).write_bytes(content)
    paths = [tmp_path / name for name in sounds]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AudioWarning)
        *expected, refused = Classifier(bundle / "model.onnx").classify(paths, top=3)
    assert refused.error is not None
    result = classify(bundle, *paths)
    assert result.stderr == f"{paths[-1]}: holds no samples\n"
    rows = iter(line.split("\t") for line in result.stdout.splitlines())
    for prediction in expected:
        for label, probability in zip(prediction.labels, prediction.probabilities, strict=True):
            assert next(rows) == [str(prediction.path), label, f"{probability:.4f}"]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_python_answers_for_files_of_any_name(encoding: str, bundle: Path, sound: Path, tmp_path: Path) -> None:
    names = [os.fsdecode(b"caf\xe9.wav"), "録音.wav", "plain.wav"]
    for name in names:
        (tmp_path / name).write_bytes(sound.read_bytes())
    result = subprocess.run(
        [sys.executable, "classify.py", *(tmp_path / name for name in names)],
        cwd=bundle,
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )
    assert (result.returncode, result.stderr) == (0, b"")
    shown = [line.split("\t")[0] for line in result.stdout.decode(encoding).splitlines()[::3]]
    kanji = "録音" if encoding == "utf-8" else r"\u9332\u97f3"
    assert shown == [rf"{tmp_path}/caf\udce9.wav", f"{tmp_path}/{kanji}.wav", f"{tmp_path}/plain.wav"]


def test_python_says_how_much_it_heard(bundle: Path, sound: Path, tmp_path: Path) -> None:
    """The first 0.655 s, 64 frames, of what is longer; of what is not, nothing has to be said."""
    soundfile.write(tmp_path / "long.wav", np.tile(soundfile.read(sound)[0], (20, 1)), 16000)
    result = classify(bundle, tmp_path / "long.wav", sound)
    assert result.returncode == 0
    assert result.stderr == f"{tmp_path / 'long.wav'}: heard the first 0.66 of 11.25 s\n"
    assert len(result.stdout.splitlines()) == 6
    readme = " ".join((bundle / "README.md").read_text(encoding="utf-8").split())
    assert "hears the first 10480 samples (0.66 s)" in readme


def test_several_labels_to_a_clip(sound: Path, tmp_path: Path) -> None:
    """All that are probable enough, and no others."""
    model = small_ast(labels=LABELS, backbone_options=SMALL | {"depth": 1}, probabilities="sigmoid", multi_label=True)
    model.head[1].bias.data = torch.tensor([-6.0, 6.0, -6.0, 6.0, -6.0])
    to_onnx(model, tmp_path / "b" / "model.onnx")
    write_bundle(tmp_path / "b" / "model.onnx", tmp_path / "b")
    rows = [line.split("\t") for line in classify(tmp_path / "b", sound).stdout.splitlines()]
    (expected,) = Classifier(tmp_path / "b" / "model.onnx").classify([sound])
    assert [label for _, label, _ in rows] == list(expected.labels)
    assert {label for _, label, _ in rows} == {LABELS[1], LABELS[3]}
    readme = " ".join((tmp_path / "b" / "README.md").read_text(encoding="utf-8").split())
    assert "the sigmoid of the logits. A clip may have several labels" in readme


def run_curl_script(bundle: Path, folder: Path, samples: np.ndarray) -> subprocess.CompletedProcess[str]:
    """With stand-ins for ffmpeg, which writes raw samples, and for curl, which would need a server."""
    samples.astype("<f4").tofile(folder / "samples.f32")
    (script,) = re.findall(r"```bash\n(.*?)```", (bundle / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    stand_ins = 'ffmpeg() { cp samples.f32 "${@: -1}"; }\ncurl() { echo "$@"; }\n'
    return subprocess.run(
        ["bash", "-uc", stand_ins + script], cwd=folder, capture_output=True, text=True, check=False, env=os.environ
    )


@pytest.mark.parametrize("samples", [[], [np.nan], [0.1, np.nan, 0.2], [0.1, np.inf], [-np.inf, 0.1]], ids=str)
def test_curl_sends_nothing_where_there_is_nothing_to_hear(bundle: Path, tmp_path: Path, samples: list[float]) -> None:
    result = run_curl_script(bundle, tmp_path, np.array(samples))
    assert result.returncode != 0
    assert result.stdout == ""
    assert not (tmp_path / "request.json").exists()


def test_curl_sends_the_samples(bundle: Path, tmp_path: Path) -> None:
    samples = np.random.default_rng(0).normal(size=1000).astype("<f4")
    result = run_curl_script(bundle, tmp_path, samples)
    assert result.returncode == 0
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
        ("torn.onnx", {"labels": '["a\\nb", "c", "d", "e", "f"]'}, r"torn\.onnx: a label holds a line break"),
    ):
        proto = onnx.load(bundle / "model.onnx")
        props = {prop.key: prop.value for prop in proto.metadata_props}
        onnx.helper.set_model_props(proto, props | changes)
        proto.graph.input[0].name = changes.get("input", "waveform")
        for node in proto.graph.node:
            node.input[:] = [changes.get("input", port) if port == "waveform" else port for port in node.input]
        onnx.save(proto, tmp_path / name)
        with pytest.raises(FileError, match=complaint):
            write_bundle(tmp_path / name, tmp_path / "b")
    assert not (tmp_path / "b").exists()
