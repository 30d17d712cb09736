"""fastloaa predict --timeline and --stream: what is heard when, in every form, of files and of what still arrives."""

import csv
import io
import json
import os
import signal
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import typer
from click.testing import Result
from matplotlib.image import imread
from numpy.typing import NDArray
from typer.testing import CliRunner

from fastloaa.cli.predict import predict
from fastloaa.cli.timeline import Listener
from fastloaa.export import Classifier, timeline_figure, to_onnx
from helpers.small import SMALL, small_ast
from helpers.sounds import encoded, wav_with_sizes

LABELS = ("dog", "rain, heavy", "chainsaw [b]")
WINDOW = 10_480  # samples of 64 frames, 0.655 s
app = typer.Typer()
app.command()(predict)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Answers that differ from window to window."""
    torch.manual_seed(1)
    model = small_ast(3, labels=LABELS, backbone_options=SMALL | {"depth": 1})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    to_onnx(model, path)
    return str(path)


def sweep(samples: int) -> NDArray[np.float64]:
    """Tones that rise and noise that comes and goes."""
    time = np.arange(samples) / 16_000
    noise = np.random.default_rng(0).normal(size=samples) * 0.1 * (np.sin(3 * time) > 0)
    return 0.3 * np.sin(2 * np.pi * (100 + 700 * time) * time) + noise


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Three seconds, eight and a bit half windows behind the first."""
    soundfile.write(tmp_path / "a.wav", sweep(48_000), 16_000, subtype="FLOAT")
    return tmp_path / "a.wav"


def run(*arguments: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)


Rows = list[tuple[float, float, list[Any]]]
"""Start, end and [class, probability] of each class that is named."""


def expected(model: str, sound: Path, top: int = 3, hop: float | None = None) -> Rows:
    classifier = Classifier(model)
    return [
        (window.start, window.end, [list(pair) for pair in classifier.named(window.probabilities, top)])
        for window in classifier.timeline(sound, hop)
    ]


def in_json(text: str) -> Rows:
    rows = map(json.loads, text.splitlines())
    return [(row["start"], row["end"], [[each["label"], each["probability"]] for each in row["top"]]) for row in rows]


def test_json_lines(model: str, sound: Path, tmp_path: Path) -> None:
    result = run(model, sound, "--timeline", "--json", "--hop", 0.5)
    assert (result.exit_code, result.stderr) == (0, "")
    assert in_json(result.stdout) == expected(model, sound, hop=0.5)
    assert {json.loads(line)["file"] for line in result.stdout.splitlines()} == {str(sound)}
    result = run(model, sound, "--timeline", "--hop", 0.5, "--out", tmp_path / "new" / "a.jsonl")
    assert (result.exit_code, result.stdout) == (0, "")
    assert in_json((tmp_path / "new" / "a.jsonl").read_text()) == expected(model, sound, hop=0.5)


def test_csv(model: str, sound: Path, tmp_path: Path) -> None:
    """Of two recordings, one of them with a name that needs quotes."""
    other = sound.rename(tmp_path / 'b, "c".wav')
    soundfile.write(sound, sweep(12_000), 16_000)
    assert run(model, other, sound, "--timeline", "--top", 2, "--out", tmp_path / "all.csv").exit_code == 0
    with (tmp_path / "all.csv").open(newline="") as file:
        rows = [(row["file"], float(row["start"]), float(row["end"]), row["label"], float(row["probability"]))
                for row in csv.DictReader(file)]  # fmt: skip
    assert rows == [
        (str(path), start, end, label, probability)
        for path in (other, sound)
        for start, end, named in expected(model, path, 2)
        for label, probability in named
    ]


def test_labels_for_audacity(model: str, sound: Path, tmp_path: Path) -> None:
    """Each window is covered by a label of its class, and no label covers windows of another."""
    assert run(model, sound, "--timeline", "--hop", 0.05, "--top", 1, "--out", tmp_path / "a.txt").exit_code == 0
    labels = [line.split("\t") for line in (tmp_path / "a.txt").read_text().splitlines()]
    windows = expected(model, sound, 1, 0.05)
    assert 3 < len(labels) < len(windows) / 2
    assert len({named[0][0] for _, _, named in windows}) > 1
    covered = []
    for start, end, text in labels:
        name, largest = text.rsplit(" ", 1)
        inside = [each for each in windows if float(start) <= each[0] + 1e-6 and each[1] - 1e-6 <= float(end)]
        of_name = [probability for _, _, ((label, probability),) in inside if label == name]
        assert len(of_name) == len(inside)
        assert float(largest) == pytest.approx(max(of_name), abs=0.005)
        assert (float(start), float(end)) == pytest.approx((inside[0][0], inside[-1][1]))
        covered += inside
    assert sorted(covered) == sorted(windows)


def test_a_table(model: str, sound: Path) -> None:
    head, *rows = run(model, sound, "--timeline").stdout.splitlines()
    assert head.split() == ["seconds", "label", "probability", "further"]
    for row, (start, end, named) in zip(rows, expected(model, sound), strict=True):
        assert row.split()[:3] == [f"{start:.3f}", "-", f"{end:.3f}"]
        assert row.index(named[0][0]) < row.index(f"{named[0][1]:.1%}") < row.index(named[1][0])


@pytest.mark.parametrize("samples", [400, 12_000, 48_000])
def test_a_picture(samples: int, model: str, sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a recording of one frame, below one window, and of more columns than are drawn."""
    soundfile.write(sound, sweep(samples), 16_000)
    monkeypatch.setattr(timeline_figure, "COLUMNS", 50)
    result = run(model, sound, "--timeline", "--hop", 0.01, "--out", tmp_path / "a.png")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert imread(tmp_path / "a.png").std() > 0.1


@pytest.mark.parametrize("broken", [sweep(399), 1e30 * sweep(9000)], ids=["too short", "far too large"])
def test_recordings_without_a_picture(broken: NDArray[np.float64], model: str, sound: Path, tmp_path: Path) -> None:
    """Are named, and the others have theirs."""
    soundfile.write(tmp_path / "broken.wav", broken, 16_000, subtype="FLOAT")
    out = tmp_path / "out"
    result = run(model, tmp_path / "broken.wav", sound, "--timeline", "--out", out, "--format", "png")
    assert result.exit_code == 1
    line, count = result.stderr.splitlines()
    assert line.startswith(f"{tmp_path / 'broken.wav'}: ")
    assert count == "1 of 2 files could not be read"
    assert [path.name for path in out.iterdir()] == ["a.wav.png"]


def test_what_is_in_the_picture(model: str, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log-mel frames of the recording, each once and at its time, and the windows; joined, where there are many."""
    classifier = Classifier(model)
    picture = timeline_figure.TimelinePicture(classifier.metadata)
    samples = torch.from_numpy(sweep(48_000)).float()
    windows = []
    for window in classifier.timeline(picture.listen(samples.split(1700))):
        picture.add(window)
        windows.append(window)
    sound_axes, class_axes, *_ = picture.figure("a title").axes
    drawn = np.asarray(sound_axes.collections[0].get_array())
    front_end = small_ast(3, frames=298).front_end
    assert drawn.shape == (128, 298)
    log_mel, _ = front_end.padded_log_mel(samples[None])
    decibels = (log_mel[0].T * front_end.decibels).numpy()
    loud = decibels > -40  # below, what each frame's own mean leaves differs
    assert loud.mean() > 0.5
    np.testing.assert_allclose(drawn[loud], decibels[loud], atol=0.1)
    names = [tick.get_text() for tick in class_axes.get_yticklabels()]
    assert sorted(names) == sorted(LABELS)
    rows = np.asarray(class_axes.collections[0].get_array())
    for name, row in zip(names, rows, strict=True):
        np.testing.assert_array_equal(row, [window.probabilities[LABELS.index(name)] for window in windows])
    assert class_axes.get_xlim() == (0, 3)


def test_long_recordings_share_columns(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    """What is likeliest in any window stays to be seen."""
    monkeypatch.setattr(timeline_figure, "COLUMNS", 8)
    classifier = Classifier(model)
    picture = timeline_figure.TimelinePicture(classifier.metadata)
    windows = list(classifier.timeline(np.tile(sweep(48_000), 3), hop=0.05))
    for window in windows:
        picture.add(window)
    _, class_axes, *_ = picture.figure().axes
    mesh = class_axes.collections[0]
    rows = np.asarray(mesh.get_array())
    assert 8 <= rows.shape[1] <= 16
    assert rows.max() == max(window.probabilities.max() for window in windows)
    edges = mesh.get_coordinates()[0, :, 0]
    assert (edges[0], edges[-1]) == (0, 9)
    assert (np.diff(edges) > 0).all()


def test_labels_and_pictures_of_several(model: str, sound: Path, tmp_path: Path) -> None:
    """A file of each in a folder, whatever their folders."""
    deep = tmp_path / "deep" / "a.wav"
    deep.parent.mkdir()
    soundfile.write(deep, sweep(9000), 16_000)
    out = tmp_path / "labels"
    assert run(model, sound, deep, "--timeline", "--out", out, "--format", "txt").exit_code == 0
    assert {str(path.relative_to(out)) for path in out.rglob("*.txt")} == {"a.wav.txt", "deep/a.wav.txt"}
    for arguments, message in [
        ([sound, deep, "--out", "a.txt"], "txt is of one recording, got 2; give --out FOLDER --format txt"),
        ([sound, "--format", "png"], "a picture needs a file: add --out NAME.png"),
        ([sound, "--pool", "max"], "--pool makes one answer of many windows"),
        ([sound, "--out", "a.parquet"], "a.parquet: give a name that ends in .jsonl, .csv, .txt, .png"),
        ([sound, "--out", "a"], "a: give a name that ends in"),
    ]:
        result = run(model, "--timeline", *arguments)
        assert result.exit_code != 0
        assert message in str(result.exception)


def test_what_is_heard_before_the_damage_is_kept(model: str, sound: Path, tmp_path: Path) -> None:
    samples = sweep(48_000)
    samples[40_000] = np.inf
    soundfile.write(tmp_path / "nan.wav", samples, 16_000, subtype="FLOAT")
    message = f"{tmp_path / 'nan.wav'}: holds NaN or infinite samples, the first at 2.5 s; write it again"
    result = run(model, tmp_path / "nan.wav", sound, "--timeline", "--json", "--batch-size", 1)
    assert (result.exit_code, result.stderr) == (1, "1 of 2 files could not be read\n")
    *windows, error = [json.loads(line) for line in result.stdout.splitlines() if "nan.wav" in line]
    assert error["error"].startswith(message)
    assert all(window["end"] <= 2.5 for window in windows)
    result = run(model, tmp_path / "nan.wav", "--timeline", "--out", tmp_path / "nan.png")
    assert result.exit_code == 1
    assert result.stderr.startswith(message)
    assert not (tmp_path / "nan.png").exists()


def test_a_pipe_is_heard_as_its_file(model: str, sound: Path) -> None:
    content = wav_with_sizes(sound.read_bytes(), 0xFFFFFFFF, 0xFFFFFFFF)
    for option in ("--timeline", "--stream"):
        result = run(model, "-", option, "--json", stdin=content)
        assert (result.exit_code, result.stderr) == (0, "")
        assert [row[:2] for row in in_json(result.stdout)] == [row[:2] for row in expected(model, sound)]


def test_a_stream_is_of_one_pipe(model: str, sound: Path) -> None:
    for arguments in ([sound], ["-", sound]):
        assert "--stream hears one pipe" in str(run(model, *arguments, "--stream").exception)


def test_a_stream_is_answered_while_it_arrives(model: str, sound: Path, tmp_path: Path) -> None:
    """With nothing more in the pipe than the window that is answered, and a tenth of a second."""
    content = wav_with_sizes(encoded(sweep(48_000), 16_000, "WAV", "PCM_16"), 0xFFFFFFFF, 0xFFFFFFFF)
    pipe, begin, written = tmp_path / "pipe", content.index(b"data") + 8, 0
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # so that opening it for writing does not wait
    writing = os.open(pipe, os.O_WRONLY)
    heard = Listener(Classifier(model), 0.5, 8, 1, None, live=True).hear(pipe)
    for number in range(3):
        enough = begin + 2 * (number * 8000 + WINDOW + 1600)
        written += os.write(writing, content[written:enough])
        assert written == enough
        assert next(heard)[:2] == (number / 2, pytest.approx(number / 2 + 0.655))
    os.close(writing)
    assert [start for start, _, _ in heard] == [pytest.approx(enough / 32_000 - begin / 32_000 - 0.655)]
    os.close(reading)


class Interrupted(io.BytesIO):
    """Standard input of somebody who presses Ctrl-C in the middle of a sound that goes on."""

    pressed = False

    def read(self, size: int | None = -1) -> bytes:
        part = super().read(size)
        if not self.pressed and (size is None or len(part) < size):
            self.pressed = True
            signal.raise_signal(signal.SIGINT)
        return part + bytes(0 if size is None else size - len(part))


@pytest.mark.parametrize(
    ("option", "name", "kept"),
    [("--stream", "a.csv", True), ("--stream", "a.png", True), ("--timeline", "a.csv", False)],
)
def test_ctrl_c_ends_a_stream(
    option: str,
    name: str,
    kept: bool,
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """What was heard is kept; of what is no stream, nothing half done."""
    from fastloaa.cli import app as whole

    both = np.repeat(sweep(98_400)[:, None], 2, 1)
    content = wav_with_sizes(encoded(both, 48_000, "WAV", "PCM_16"), 0xFFFFFFFF, 0xFFFFFFFF)
    stdin = types.SimpleNamespace(buffer=Interrupted(content), closed=False, isatty=lambda: False)
    monkeypatch.setattr(sys, "stdin", stdin)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as end:
            whole(["predict", model, "-", option, "--top", "1", "--out", str(tmp_path / name)])
    finally:
        signal.signal(signal.SIGINT, before)
    assert end.value.code == 130
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == [name] * kept
    if name == "a.png":
        assert imread(tmp_path / name).std() > 0.1
    elif kept:
        with (tmp_path / "a.csv").open() as file:
            ends = [float(row["end"]) for row in csv.DictReader(file)]
        assert ends == pytest.approx([0.655 + 0.3275 * number for number in range(5)])
