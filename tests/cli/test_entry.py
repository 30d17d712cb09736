"""The command line as a whole: what it lists, and how it fails."""

import errno
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

import fastloaa
import fastloaa.training
from fastloaa.cli import app
from fastloaa.errors import ArgumentError, ArgumentTypeError
from fastloaa.training import TrainingError

COMMANDS = (
    "download",
    "recipes",
    "train",
    "sweep",
    "evaluate",
    "merge",
    "export",
    "predict",
    "serve",
    "attention",
    "doctor",
)


def test_help_lists_the_commands() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert all(f" {command} " in result.stdout for command in COMMANDS)
    assert "Example: fastloaa train" in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


def test_help_shows_all_of_its_text() -> None:
    """Also what is in [brackets], which typer's help takes for markup."""
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        shown = "".join(CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "300"}).stdout.split())
        for parameter in command.params:
            assert "".join((parameter.help or "").split()) in shown, f"{name} {parameter.name}"


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"fastloaa {fastloaa.__version__}\n")


ARGUMENTS = ["train", "--data", "x", "--out", "unused"]


def invoke_with(error: Exception, monkeypatch: pytest.MonkeyPatch, *options: str) -> tuple[int, str, object]:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(fastloaa.training, "train", fail)
    result = CliRunner().invoke(app, [*options, *ARGUMENTS])
    return result.exit_code, result.stderr, result.exception


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (TrainingError("two\nlines"), "error: two lines\n"),
        (ArgumentError("frames is at least 1, got 0"), "error: frames is at least 1, got 0\n"),
        (ArgumentTypeError("expected a path, got None"), "error: expected a path, got None\n"),
        (FileNotFoundError(errno.ENOENT, "No such file", "x.wav"), "error: [Errno 2] No such file: 'x.wav'\n"),
    ],
)
def test_refusals_are_one_line(error: Exception, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert invoke_with(error, monkeypatch)[:2] == (2, line)
    assert invoke_with(error, monkeypatch, "--debug")[2] is error


@pytest.mark.parametrize("kind", [ValueError, TypeError, RuntimeError, KeyError, AssertionError])
def test_bugs_show_themselves(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    bug = kind("somewhere in a library")
    code, stderr, raised = invoke_with(bug, monkeypatch)
    assert (code, stderr) == (1, "")
    assert raised is bug


def test_data_that_end_early_are_a_bug_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    bug = EOFError("marshal data too short")
    code, _, raised = invoke_with(bug, monkeypatch)
    assert code == 1
    assert isinstance(raised, RuntimeError)
    assert raised.__cause__ is bug


@pytest.mark.parametrize(
    ("words", "named", "help_of"),
    [
        ("--nothing", "--nothing", "fastloaa"),
        ("nothing", "nothing", "fastloaa"),
        ("merge", "run", "fastloaa merge"),
        ("export run --nothing", "--nothing", "fastloaa export"),
        ("export run --weights", "--weights", ""),
        ("export run model.onnx --precision int7", "--precision", "fastloaa export"),
        ("predict model.onnx x.wav --top many", "--top", "fastloaa predict"),
        ("--debug recipes one two", "two", "fastloaa recipes"),
    ],
)
def test_words_that_no_command_takes_are_one_line(words: str, named: str, help_of: str) -> None:
    result = CliRunner().invoke(app, words.split(), prog_name="fastloaa")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith("error: ")
    assert result.stderr.endswith(f"; {help_of} --help shows what it takes\n" if help_of else "requires an argument\n")
    assert named in result.stderr.lower()


def test_no_words_at_all_show_the_help() -> None:
    result = CliRunner().invoke(app, [], prog_name="fastloaa")
    assert "Commands" in result.output
    assert "error: " not in result.output


def test_as_a_process() -> None:
    result = subprocess.run(
        [sys.executable, "-c", "from fastloaa.cli import main; main()", "evaluate", "nowhere"],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == "error: nowhere: no recipe.yaml in it; expected a folder that fastloaa train made\n"
