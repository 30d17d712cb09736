"""fastloaa predict: a table for people, JSON lines for scripts, and no file that stops the others."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import typer
from click.testing import Result
from small import SMALL, small_ast
from typer.testing import CliRunner

from fastloaa.cli.predict import predict, sound_files
from fastloaa.export import to_onnx

LABELS = ("dog", "rain", "chainsaw [b]", "sea waves", "clock")
app = typer.Typer()
app.command()(predict)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    to_onnx(small_ast(labels=LABELS, backbone_options=SMALL | {"depth": 1}), path)
    return str(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sounds on two levels, a file that is not audio but says so, and one that nobody would listen to."""
    for name in ("b.wav", "deep/a.FLAC"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, np.random.default_rng(0).normal(size=4000) * 0.1, 16000)
    (tmp_path / "broken.wav").write_text("not a sound")
    (tmp_path / "notes.txt").write_text("not a sound either")
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_table(model: str, folder: Path) -> None:
    result = run(model, folder / "b.wav", folder / "deep")
    assert result.exit_code == 0
    assert result.stderr == ""
    head, first, second = result.stdout.splitlines()
    assert head.split() == ["file", "label", "probability", "further"]
    for row, path in ((first, folder / "b.wav"), (second, folder / "deep" / "a.FLAC")):
        assert row.startswith(f"{path} ")
        assert sum(label in row for label in LABELS) == 3
        shares = [float(word.strip("%,")) for word in row.split() if "%" in word]
        assert shares == sorted(shares, reverse=True)
        assert len(shares) == 3
        assert row.index(f"{shares[0]}%") + len(f"{shares[0]}%") == head.index("probability") + len("probability")


def test_json_lines(model: str, folder: Path) -> None:
    result = run(model, folder / "b.wav", "--json", "--top", 5)
    (answer,) = map(json.loads, result.stdout.splitlines())
    assert answer["file"] == str(folder / "b.wav")
    assert sorted(entry["label"] for entry in answer["top"]) == sorted(LABELS)
    assert sum(entry["probability"] for entry in answer["top"]) == pytest.approx(1, abs=1e-6)


def test_no_class_is_probable_enough(model: str, folder: Path) -> None:
    """An answer, not a mistake: it has a row, and a line of JSON."""
    result = run(model, folder / "b.wav", folder / "deep", "--threshold", 1)
    assert (result.exit_code, result.stderr) == (0, "")
    assert [row.split() for row in result.stdout.splitlines()[1:]] == [
        [str(folder / "b.wav"), "-"],
        [str(folder / "deep" / "a.FLAC"), "-"],
    ]
    result = run(model, folder / "b.wav", "--threshold", 1, "--json")
    assert json.loads(result.stdout)["top"] == []
    assert run(model, folder / "b.wav", "--threshold", 1.5).exit_code == 2


def test_how_much_of_a_long_recording_was_heard(model: str, folder: Path) -> None:
    """64 frames: 0.655 s. A warning for people, numbers for scripts."""
    soundfile.write(folder / "long.wav", np.zeros(24_000), 16000)
    result = run(model, folder / "b.wav", folder / "long.wav", "--json")
    assert result.exit_code == 0
    assert result.stderr == "of 1 of 2 files only the first 0.66 s were heard\n"
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(answer["seconds"], answer["heard"]) for answer in answers] == [(0.25, 0.25), (1.5, 0.655)]


@pytest.mark.parametrize("options", [[], ["--json"], ["--batch-size", 1]])
def test_a_broken_file_is_named_and_the_others_are_answered(model: str, folder: Path, options: list[object]) -> None:
    result = run(model, folder, *options)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == ["1 of 3 files could not be read"]
    lines = result.stdout.splitlines()[0 if "--json" in options else 1 :]
    assert len(lines) == 3
    assert all(str(path) in line for path, line in zip(sound_files([str(folder)]), lines, strict=True))
    assert f"{folder / 'broken.wav'}: not a sound file" in lines[1]
    assert all("%" in line or "probability" in line for line in (lines[0], lines[2]))


def test_what_the_arguments_mean(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    b, broken, a = folder / "b.wav", folder / "broken.wav", folder / "deep" / "a.FLAC"
    odd = folder / "[1].wav"
    odd.touch()
    assert sound_files([str(folder / "*.wav")]) == [odd, b, broken]
    assert sound_files([str(folder / "**" / "*.FLAC")]) == [a]
    assert sound_files([str(odd)]) == [odd]  # there is a file of this name: no pattern
    assert sound_files([str(a), str(b), "missing.wav"]) == [a, b, Path("missing.wav")]
    assert sound_files([str(folder)]) == [odd, b, broken, a]  # notes.txt is no sound
    assert sound_files([str(folder / "notes.txt")]) == [folder / "notes.txt"]  # asked for by name: named as broken
    monkeypatch.chdir(folder)
    assert sound_files(["b*.wav"]) == [Path("b.wav"), Path("broken.wav")]


@pytest.mark.parametrize(("argument", "words"), [("", "a folder without sound files"), ("*.ogg", "no file matches")])
def test_nothing_found_is_an_error(argument: str, words: str, model: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=words):
        sound_files([f"{tmp_path}/{argument}"])
    result = run(model, f"{tmp_path}/{argument}")
    assert result.exit_code != 0
    assert isinstance(result.exception, FileNotFoundError)


def test_progress_goes_to_a_terminal_and_answers_to_their_file(model: str, folder: Path) -> None:
    """stderr a terminal, stdout a pipe: rich's default would send the answers to the terminal."""
    code = "import typer; from fastloaa.cli.predict import predict; typer.run(predict)"
    ours, theirs = pty.openpty()
    process = subprocess.run(
        [sys.executable, "-c", code, model, str(folder / "b.wav"), str(folder / "deep"), "--json"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm"},
        check=True,
    )
    os.close(theirs)
    assert [json.loads(line)["file"] for line in process.stdout.decode().splitlines()] == [
        str(folder / "b.wav"),
        str(folder / "deep" / "a.FLAC"),
    ]
    assert b"Listening" in os.read(ours, 100_000)
    os.close(ours)
