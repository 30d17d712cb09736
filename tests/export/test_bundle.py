"""A bundle: what is in it works without PyTorch and without this library."""

import json
import os
import runpy
import shutil
import struct
import subprocess
import sys
import warnings
import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch
import torchaudio

from fastloaa.audio import AudioWarning
from fastloaa.export import Classifier, to_onnx, write_bundle
from fastloaa.files import FileError
from helpers.bundles import LABELS
from helpers.small import SMALL, small_ast
from helpers.sounds import encoded, flac_of_length, noise, replaced, wav_with_sizes


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    time = np.arange(9000) / 16000
    stereo = 0.3 * np.stack((np.sin(2000 * time), np.sin(5000 * time)), axis=1)
    soundfile.write(tmp_path / "sound.wav", stereo, 16000)
    return tmp_path / "sound.wav"


def test_what_is_in_it(bundle: Path) -> None:
    names = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    files = {name for name in names if not name.startswith("web/")}
    assert files == {
        "CMakeLists.txt",
        "README.md",
        "ask.sh",
        "classify.cpp",
        "classify.mjs",
        "classify.py",
        "labels.txt",
        "model.json",
        "model.onnx",
        "triton-python/my_sounds/1/model.py",
        "triton-python/my_sounds/config.pbtxt",
        "triton-python/my_sounds/labels.txt",
        "triton/my_sounds/1/model.onnx",
        "triton/my_sounds/config.pbtxt",
        "triton/my_sounds/labels.txt",
    }
    for labels in bundle.rglob("labels.txt"):
        assert labels.read_text(encoding="utf-8").splitlines() == list(LABELS)
    weights = [path for path in bundle.rglob("*") if path.is_file() and path.stat().st_size > 100_000]
    assert {path.resolve() for path in weights} == {bundle / "model.onnx"}  # once on the disk
    link = bundle / "triton/my_sounds/1/model.onnx"
    assert link.readlink() == Path("../../../model.onnx")  # right in a copy of the folder too


def test_what_clients_need_to_know(bundle: Path) -> None:
    """Without reading the ONNX file's metadata, which JavaScript cannot."""
    about = json.loads((bundle / "model.json").read_text())
    metadata = Classifier(bundle / "model.onnx").metadata
    assert about["labels"] == list(LABELS)
    assert (about["sample_rate"], about["window"]) == (metadata.sample_rate, metadata.samples) == (16000, 10480)
    assert about["hop"] == 10480 // 2
    assert about["shortest"] == 400  # 25 ms
    assert (about["probabilities"], about["multi_label"], about["precision"]) == ("softmax", False, "fp32")


def test_all_of_it_is_in_the_wheel(bundle: Path, tmp_path: Path) -> None:
    """What pip installs has every file that a bundle is made of."""
    root = Path(__file__).parents[2]
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"  # pip may be missing
    source = tmp_path / "source"
    left_out = shutil.ignore_patterns(".*", "build", "runs", "tests", "bench", "docs", "examples")
    shutil.copytree(root, source, ignore=left_out)
    subprocess.run([sys.executable, "-c", build, tmp_path], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    place = "fastloaa/export/bundle/bundle-files/"
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith(place)}
    files = root / "export" / "bundle" / "bundle-files"
    expected = {path.relative_to(files) for path in files.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert packed == {f"{place}{name}" for name in expected}


def test_python_needs_nothing_of_ours(bundle: Path, sound: Path) -> None:
    """classify.py where torch, fastloaa and onnx cannot be imported."""
    blocked = "import sys; sys.modules.update(dict.fromkeys(['torch', 'fastloaa', 'onnx', 'torchaudio']))"
    given = f"sys.argv[1:] = [{str(sound)!r}]"
    run = f"import runpy; runpy.run_path({str(bundle / 'classify.py')!r}, run_name='__main__')"
    code = "\n".join((blocked, given, run))
    result = subprocess.run([sys.executable, "-c", code], cwd=sound.parent, capture_output=True, check=False)
    assert not result.stderr
    rows = [line.split("\t") for line in result.stdout.decode().splitlines()]
    (expected,) = Classifier(bundle / "model.onnx").classify([sound])
    assert [label for _, label, _ in rows] == list(expected.labels)
    assert [float(share) for *_, share in rows] == pytest.approx(expected.probabilities, abs=6e-5)
    assert {path for path, *_ in rows} == {str(sound)}


def classify(bundle: Path, *files: Path) -> subprocess.CompletedProcess[str]:
    """From another folder: the model is found beside the script."""
    arguments = [sys.executable, str(bundle / "classify.py"), *map(str, files)]
    return subprocess.run(arguments, cwd="/", capture_output=True, text=True, check=False)


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
    soundfile.write(folder / "loud.wav", 1e30 * tone, 16000, subtype="FLOAT")
    for rate in (1, 999, 1_000_001, 70_000_000):  # which no ratio with terms of four digits is near to, at the ends
        content = encoded(tone, 16000, "WAV")
        (folder / f"{rate}.wav").write_bytes(replaced(content, content.index(b"fmt ") + 12, "<I", rate))
    (folder / "text.wav").write_text("not a sound")
    (folder / "nothing.wav").touch()
    (folder / "folder.wav").mkdir()
    return [*sorted(folder.iterdir()), folder / "nowhere.wav"]


def test_python_refuses_what_predict_refuses(bundle: Path, sound: Path, tmp_path: Path) -> None:
    """In one line each, and goes on with the others."""
    (tmp_path / "bad").mkdir()
    files = unusable(tmp_path / "bad")
    assert all(prediction.error for prediction in Classifier(bundle / "model.onnx").classify(files))
    soundfile.write(tmp_path / "brief.wav", 0.1 * np.ones(199), 8000)
    result = classify(bundle, *files, tmp_path / "brief.wav", sound)
    assert result.returncode == 1
    assert {line.split("\t")[0] for line in result.stdout.splitlines()} == {str(sound)}
    *complaints, brief = result.stderr.splitlines()
    assert len(complaints) == len(files) == 19
    for file, complaint in zip(files, complaints, strict=True):
        assert complaint.startswith(f"{file}: ")
    for word, files_of_it in (
        ("NaN", 3),
        ("truncated", 3),
        ("no samples", 2),
        ("not a number", 1),
        ("its header says", 4),
    ):
        assert sum(word in complaint for complaint in complaints) == files_of_it
    assert brief.startswith(f"{tmp_path / 'brief.wav'}: 398 samples at 16000 Hz; ")  # less than one window of 25 ms


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000, 44101, 192_000])
def test_python_resamples(rate: int, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Block by block as all at once in float64, by torchaudio."""
    client = runpy.run_path(str(bundle / "classify.py"))
    samples = np.random.default_rng(rate).normal(size=rate // 3).astype(np.float32)
    ratio = Fraction(min(rate, 16000), max(rate, 16000)).limit_denominator(2000)
    low, high = ratio.as_integer_ratio()
    terms = (high, low) if rate > 16000 else (low, high)
    expected = torchaudio.functional.resample(torch.from_numpy(samples).double(), *terms).numpy()
    for block in (777, 1 << 16):
        blocks = (samples[start : start + block] for start in range(0, len(samples), block))
        np.testing.assert_allclose(np.concatenate(list(client["resampled"](blocks, rate))), expected, atol=1e-5)


def test_python_hears_all_of_a_recording(bundle: Path, tmp_path: Path) -> None:
    """Windows half a window apart and one at the end; the mean of what a session says to each."""
    session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    window, hop = 10480, 5240
    for samples, starts in {
        4000: [0],
        window: [0],
        window + 1: [0, 1],
        window + hop: [0, hop],
        3 * window + 7: [0, hop, 2 * hop, 3 * hop, 4 * hop, 2 * window + 7],
    }.items():
        waveform = noise(samples, seed=samples).astype(np.float32) * np.linspace(0, 1, samples, dtype=np.float32)
        soundfile.write(tmp_path / "sound.wav", waveform, 16000, subtype="FLOAT")
        heard = [waveform[None, start : start + window] for start in starts]
        expected = np.mean([session.run(["probabilities"], {"waveform": part})[0][0] for part in heard], axis=0)
        rows = [line.split("\t") for line in classify(bundle, tmp_path / "sound.wav").stdout.splitlines()]
        assert {label: float(share) for _, label, share in rows} == pytest.approx(
            {LABELS[i]: expected[i] for i in expected.argsort()[::-1][:3]}, abs=6e-5
        )


def test_python_hears_what_predict_hears_of_long_recordings(bundle: Path, tmp_path: Path) -> None:
    """Of any rate, with as many channels as there are."""
    paths = []
    for rate in (11_025, 16_000, 44_100):
        growing = noise(2 * rate, channels=2, seed=rate) * np.linspace(0, 1, 2 * rate)[:, None]
        soundfile.write(tmp_path / f"{rate}.flac", growing, rate)
        paths.append(tmp_path / f"{rate}.flac")
    rows = [line.split("\t") for line in classify(bundle, *paths).stdout.splitlines()]
    expected = [
        (str(answer.path), label, probability)
        for answer in Classifier(bundle / "model.onnx").classify(paths)
        for label, probability in zip(answer.labels, answer.probabilities, strict=True)
    ]
    assert [(path, label) for path, label, _ in rows] == [(path, label) for path, label, _ in expected]
    assert [float(share) for *_, share in rows] == pytest.approx([share for *_, share in expected], abs=2e-4)


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
    about = json.loads((tmp_path / "b" / "model.json").read_text())
    assert (about["probabilities"], about["multi_label"]) == ("sigmoid", True)


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

    monkeypatch.setattr(os, "symlink", refuse)
    write_bundle(bundle / "model.onnx", tmp_path / "b")
    assert (tmp_path / "b/triton/b/1/model.onnx").read_bytes() == (bundle / "model.onnx").read_bytes()


def test_what_cannot_be_served(bundle: Path, tmp_path: Path) -> None:
    for name, changes, complaint in (
        ("mel.onnx", {"input": "log_mel"}, r"mel\.onnx: reads log_mel; servers want waveforms"),
        ("torn.onnx", {"labels": '["a\\nb", "c", "d", "e", "f"]'}, r"torn\.onnx: a label holds a line break"),
        (
            "lines.onnx",
            {"labels": '["a\\n", "b\\n", "c\\n", "d\\n", "e\\n"]'},
            r"lines\.onnx: a label holds a line break",
        ),
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
