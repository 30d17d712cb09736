"""fastloaa predict: a table for people, JSON lines for scripts, and no file that stops the others."""

import contextlib
import io
import json
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import typer
from click.testing import Result
from rich.cells import cell_len
from typer.testing import CliRunner

from fastloaa.audio import sources
from fastloaa.cli.answers import table_writer
from fastloaa.cli.predict import predict, sound_files
from fastloaa.export import Classifier, Prediction, to_onnx
from fastloaa.text import printable
from helpers.small import SMALL, small_ast

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


def run(*arguments: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)


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


def test_all_of_a_long_recording_is_heard(model: str, folder: Path) -> None:
    """64 frames: 0.655 s."""
    soundfile.write(folder / "long.wav", np.zeros(24_000), 16000)
    result = run(model, folder / "b.wav", folder / "long.wav", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(answer["seconds"], answer["heard"]) for answer in answers] == [(0.25, 0.25), (1.5, 1.5)]


def test_options_of_windows_reach_the_classifier(model: str, folder: Path) -> None:
    soundfile.write(folder / "long.wav", np.random.default_rng(0).normal(size=40_000) * 0.1, 16000)
    for options in ({"hop": 0.2}, {"pool": "max"}, {"hop": 0.2, "pool": "max", "workers": 0}):
        (expected,) = Classifier(model).classify(folder / "long.wav", **options)  # type: ignore[arg-type]
        words = [f"--{name}={value}" for name, value in options.items()]
        (answer,) = map(json.loads, run(model, folder / "long.wav", "--json", *words).stdout.splitlines())
        assert [entry["label"] for entry in answer["top"]] == list(expected.labels)
        assert [entry["probability"] for entry in answer["top"]] == list(expected.probabilities)


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


NAMES = [
    "録音データ第一号",  # two columns a character
    "한국어 녹음",
    "👩‍👩‍👧 family",  # five code points, one picture of two columns
    "e\u0301t\u0301e\u0301",  # accents that take no column
    "ｆｕｌｌｗｉｄｔｈ",
    "हिन्दी ध्वनि",
    "بومة",
    "🎉" * 20,
    "plain",
    os.fsdecode(b"caf\xe9"),
    os.fsdecode("猫".encode("shift_jis")),
    "[bold]no markup :smile:",
    "two\nlines",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_pipe_gets_names_whole_and_columns_of_one_width(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    labels = (f"{printable(name)} a", "short", "玻璃破碎的声音" * 30)
    paths = [Path("sounds") / f"{name}{i}.wav" for i in range(2)] + [Path("x.wav")]
    write = table_writer(paths, labels)
    for path in paths:
        write(Prediction(path, labels, (0.5, 0.3, 0.2)))
    write(Prediction(paths[0], error=f"{paths[0]}: no sound"))
    head, *rows, error = capsys.readouterr().out.splitlines()
    starts = [cell_len(head[: head.index(column)]) for column in ("label", "probability", "further")]
    for path, row in zip(paths, rows, strict=True):
        assert row.startswith(f"{printable(path)}  ")
        assert f"{labels[1]} 30.0%, {labels[2]} 20.0%" in row
        before = [row[: row.index(text, len(printable(path)))] for text in (labels[0], "      50.0%", labels[1])]
        assert [cell_len(part) for part in before] == starts
    assert error == f"{printable(paths[0])}: no sound"


@pytest.mark.parametrize("name", NAMES)
def test_a_terminal_gets_the_end_of_a_long_path(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes any stream for a terminal
    monkeypatch.setenv("TERM", "dumb")
    screen = io.StringIO()
    path = Path(*[name] * 60) / "the end.wav"
    with contextlib.redirect_stdout(screen):
        table_writer([path], ("dog", "cat"))(Prediction(path, ("dog",), (1.0,)))
    row = re.sub(r"\x1b\[[\d;]*m", "", screen.getvalue()).splitlines()[-1]
    assert row.startswith("…")
    shown, rest = row.split("the end.wav")
    assert 40 - 2 <= cell_len(shown) + len("the end.wav") <= 40  # half of the screen; a wide character may not fit
    assert rest.split() == ["dog", "100.0%"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("as_json", [False, True])
def test_files_of_any_name_are_answered(name: str, as_json: bool, model: str, tmp_path: Path) -> None:
    sound = io.BytesIO()
    soundfile.write(sound, np.random.default_rng(0).normal(size=4000) * 0.1, 16000, format="WAV")
    (tmp_path / f"{name}.wav").write_bytes(sound.getvalue())
    (tmp_path / f"{name}.flac").write_bytes(b"no sound")
    result = run(model, tmp_path, *["--json"] * as_json)
    assert result.exit_code == 1
    assert result.stderr == "1 of 2 files could not be read\n"
    broken, read = result.stdout.splitlines()[0 if as_json else 1 :]
    if as_json:
        assert [json.loads(line)["file"] for line in (broken, read)] == sorted(map(str, tmp_path.iterdir()))
        assert "no" in json.loads(broken)["error"]
        assert len(json.loads(read)["top"]) == 3
    else:
        assert broken.startswith(f"{printable(tmp_path / name)}.flac: ")
        assert read.startswith(f"{printable(tmp_path / name)}.wav ")


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("utf-8", "録音 é"),
        ("shift_jis", r"録音 \xe9"),
        ("latin-1", r"\u9332\u97f3 é"),
        ("cp1252", r"\u9332\u97f3 é"),
        ("ascii", r"\u9332\u97f3 \xe9"),
    ],
)
def test_what_the_output_cannot_encode_is_escaped(encoding: str, shown: str, model: str, tmp_path: Path) -> None:
    """The whole command line, since a stream is set up once for all commands."""
    from fastloaa.cli import app as whole

    soundfile.write(tmp_path / "録音 é.wav", np.random.default_rng(0).normal(size=4000) * 0.1, 16000)
    result = CliRunner(charset=encoding).invoke(whole, ["predict", model, str(tmp_path)])
    assert result.exit_code == 0
    assert f"{tmp_path}/{shown}.wav " in result.stdout_bytes.decode(encoding)


def test_what_is_passed_over_is_said(model: str, folder: Path) -> None:
    (folder / "broken.wav").unlink()
    (folder / "._b.wav").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    (folder / "gone.wav").symlink_to(folder / "nowhere.wav")
    (folder / "deep" / "up").symlink_to(folder)
    result = run(model, folder)
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 3)
    assert result.stderr.splitlines() == [
        "left out: links that lead nowhere: 1 (gone.wav)",
        "left out: links to folders that are read by another path: 1 (deep/up)",
    ]


def test_a_pattern_stands_for_the_sounds_in_folders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    b, broken, a = folder / "b.wav", folder / "broken.wav", folder / "deep" / "a.FLAC"
    (folder / "._b.wav").touch()
    broken.unlink()
    (folder / "deep" / "deeper").symlink_to(folder)
    (folder / "[x]").mkdir()
    (folder / "[x]" / "c.wav").touch()
    c = folder / "[x]" / "c.wav"
    inside = folder / "deep" / "deeper"
    assert sound_files([f"{folder}/d*"]) == [a, inside / "[x]" / "c.wav", inside / "b.wav"]
    (folder / "deep" / "deeper").unlink()
    assert sound_files([f"{folder}/d*"]) == [a]
    assert sound_files([f"{folder}/**"]) == [c, b, a]
    assert sound_files([f"{folder}/**/*.wav"]) == [c, b]
    assert sound_files([f"{folder}/**/deep/**/*.FLAC"]) == [a]
    assert sound_files([f"{folder}/._*"]) == [folder / "._b.wav"]  # asked for
    monkeypatch.chdir(folder)
    assert sound_files(["**/*.wav"]) == [Path("[x]/c.wav"), Path("b.wav")]
    assert sound_files(["**"]) == [Path("[x]/c.wav"), Path("b.wav"), Path("deep/a.FLAC")]


def test_standard_input_and_pipes(model: str, folder: Path) -> None:
    """What comes through them is answered as the file that it is."""
    content = (folder / "b.wav").read_bytes()
    os.mkfifo(folder / "pipe")
    thread = threading.Thread(target=(folder / "pipe").write_bytes, args=[content])
    thread.start()
    result = run(model, "-", folder / "pipe", folder / "b.wav", "--json", stdin=content)
    thread.join()
    assert (result.exit_code, result.stderr) == (0, "")
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [answer.pop("file") for answer in answers] == ["-", str(folder / "pipe"), str(folder / "b.wav")]
    assert answers[0] == answers[1] == answers[2]


def test_a_long_pipe(model: str, folder: Path) -> None:
    """All of it, as of the file."""
    soundfile.write(folder / "b.wav", np.random.default_rng(0).normal(size=44_100 * 10) * 0.1, 44_100)
    result = run(model, "-", folder / "b.wav", "--json", stdin=(folder / "b.wav").read_bytes())
    assert result.stderr == ""
    one, other = (json.loads(line) for line in result.stdout.splitlines())
    assert one | {"file": ""} == other | {"file": ""}
    assert (one["seconds"], one["heard"]) == (10, 10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.symlink_to("/dev/zero"), "is a device, expected a sound file"),
        (lambda path: path.symlink_to("/dev/full"), "is a device, expected a sound file"),
        (os.mkfifo, "is a pipe (FIFO), and nothing came out of it in 0.1 s; start what writes to it first"),
        (lambda path: path.write_bytes(b""), "not a sound file but empty, 0 bytes; copy it again or leave it out"),
        (lambda path: path.symlink_to(path), "cannot be opened (Too many levels of symbolic links); check the path"),
        (lambda path: None, "no such file; check the path"),
    ],
)
def test_what_is_no_file_is_called_what_it_is(
    make: Callable[[Path], object], message: str, model: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "PATIENCE", 0.1)
    make(folder / "x.wav")
    result = run(model, folder / "x.wav", folder / "b.wav", "--json")
    assert (result.exit_code, result.stderr) == (1, "1 of 2 files could not be read\n")
    broken, read = (json.loads(line) for line in result.stdout.splitlines())
    assert broken["error"].startswith(f"{folder / 'x.wav'}: {message}")
    assert len(read["top"]) == 3


def test_a_folder_with_the_name_of_a_sound_is_a_folder(model: str, folder: Path) -> None:
    """Its sounds are answered, and an empty one is called what it is."""
    (folder / "deep").rename(folder / "x.wav")
    result = run(model, folder / "x.wav", "--json")
    assert [json.loads(line)["file"] for line in result.stdout.splitlines()] == [str(folder / "x.wav" / "a.FLAC")]
    (folder / "y.wav").mkdir()
    result = run(model, folder / "y.wav")
    assert str(result.exception).startswith(f"{folder / 'y.wav'}: a folder without sound files")


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
