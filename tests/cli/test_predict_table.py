"""fastloaa predict --out: a row for each recording, whatever happens on the way."""

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
import torch
import typer
from click.testing import Result
from typer.testing import CliRunner

from fastloaa.cli.predict import predict
from fastloaa.export import Classifier, Prediction, to_onnx
from helpers.small import SMALL, small_ast

LABELS = ("dog", "rain, heavy", "clock")
app = typer.Typer()
app.command()(predict)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    to_onnx(small_ast(3, labels=LABELS, backbone_options=SMALL | {"depth": 1}), path)
    return str(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nine recordings, one of them longer than a window, and one that is none."""
    (tmp_path / "sounds").mkdir()
    rng = np.random.default_rng(0)
    for number in range(9):
        samples = rng.normal(size=20_000 if number == 5 else 4000) * 0.1
        soundfile.write(tmp_path / "sounds" / f"{number}.wav", samples, 16000)
    (tmp_path / "sounds" / "3a.wav").write_text("not a sound")
    return tmp_path / "sounds"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def in_jsonl(path: Path) -> list[tuple[Any, ...]]:
    rows = map(json.loads, path.read_text().splitlines())
    return [
        (
            row["file"],
            [(each["label"], each["probability"]) for each in row.get("top", ())],
            row.get("seconds"),
            row.get("heard"),
            row.get("error"),
        )
        for row in rows
    ]


def in_csv(path: Path) -> list[tuple[Any, ...]]:
    found: dict[str, tuple[Any, ...]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            seconds, heard = (float(row[name]) if row[name] else None for name in ("seconds", "heard"))
            entry = found.setdefault(row["file"], (row["file"], [], seconds, heard, row["error"] or None))
            if row["label"]:
                entry[1].append((row["label"], float(row["probability"])))
    return list(found.values())


def in_parquet(path: Path) -> list[tuple[Any, ...]]:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pip install 'fastloaa[parquet]'")
    return [
        (
            row["file"],
            list(zip(row["labels"], row["probabilities"], strict=True)),
            *map(row.get, ("seconds", "heard", "error")),
        )
        for row in parquet.read_table(path).to_pylist()
    ]


READ = {"jsonl": in_jsonl, "csv": in_csv, "parquet": in_parquet}


def of_classifier(model: str, folder: Path, **options: Any) -> list[tuple[Any, ...]]:
    return [
        (
            str(found.path),
            list(zip(found.labels, found.probabilities, strict=True)),
            found.seconds,
            found.heard,
            found.error,
        )
        for found in Classifier(model).classify(sorted(folder.iterdir()), **options)
    ]


@pytest.mark.parametrize("form", READ)
@pytest.mark.parametrize("threshold", [[], ["--threshold", 0.4]], ids=str)
def test_a_table(form: str, threshold: list[object], model: str, folder: Path, tmp_path: Path) -> None:
    """Of all forms the same rows; at 0.4 of three classes some recordings have none, or not all."""
    out = tmp_path / "new" / f"table.{form}"
    result = run(model, folder, "--out", out, *threshold)
    assert (result.exit_code, result.stdout) == (1, "")
    done, broken = result.stderr.splitlines()
    assert done.startswith(f"{out}: 10 files in ")
    assert done.endswith(" files/s")
    assert broken == "1 of 10 files could not be read"
    assert READ[form](out) == of_classifier(model, folder, threshold=0.4 if threshold else None)
    assert [path.name for path in out.parent.iterdir()] == [out.name]


class Killed(Exception):
    """What ends a process where it stands."""


def dying_after(count: int, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Let the process end after so many answers; what is asked for until then."""
    asked: list[Path] = []
    classify = Classifier.classify

    def dying(self: Classifier, paths: list[Path], *arguments: Any, **options: Any) -> Iterator[Prediction]:
        asked.extend(paths)
        for number, answer in enumerate(classify(self, paths, *arguments, **options)):
            if number == count:
                raise Killed
            yield answer

    monkeypatch.setattr(Classifier, "classify", dying)
    return asked


@pytest.mark.parametrize("form", READ)
@pytest.mark.parametrize("half_a_line", [b"", b'{"file": "'], ids=repr)
def test_goes_on_where_it_was_stopped(
    form: str, half_a_line: bytes, model: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = of_classifier(model, folder)
    out = tmp_path / f"table.{form}"
    with monkeypatch.context() as patched:
        dying_after(5, patched)
        assert isinstance(run(model, folder, "--out", out).exception, Killed)
    assert not out.exists()
    with (tmp_path / f"table.{form}.partial").open("ab") as file:
        file.write(half_a_line)
    with monkeypatch.context() as patched:
        asked = dying_after(99, patched)
        result = run(model, folder, "--out", out)
    assert asked == sorted(folder.iterdir())[5:]
    assert result.stderr.splitlines()[0] == f"{out}: going on behind 5 of 10 files"
    assert READ[form](out) == expected
    assert {path.name for path in tmp_path.iterdir()} == {"sounds", out.name}


def test_what_was_begun_with_something_else(
    model: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "table.csv"
    with monkeypatch.context() as patched:
        dying_after(2, patched)
        run(model, folder, "--out", out, "--hop", 0.5)
    partial = tmp_path / "table.csv.partial"
    before = partial.read_bytes()
    for options, what in [
        ((), "hop"),
        (("--hop", 0.5, "--pool", "max"), "pool"),
        (("--hop", 0.5, "--top", 2, "--threshold", 0.1), "threshold and top"),
    ]:
        assert f"{partial}: was begun with another {what}; delete it" in str(
            run(model, folder, "--out", out, *options).exception
        )
    other = onnx.load(model)
    other.doc_string = "another file"
    onnx.save(other, tmp_path / "other.onnx")
    result = run(tmp_path / "other.onnx", folder, "--out", out, "--hop", 0.5)
    assert "was begun with another model" in str(result.exception)
    assert partial.read_bytes() == before
    for damaged in (b"no JSON\n", before + b"no JSON\n", before + b"{}\n", b"[]\n"):
        partial.write_bytes(damaged)
        result = run(model, folder, "--out", out, "--hop", 0.5)
        assert f"{partial}: damaged; delete it" in str(result.exception)


def test_options_that_are_refused_leave_nothing(model: str, folder: Path, tmp_path: Path) -> None:
    """Neither half a table, which would want the same options again, nor the head of one."""
    for out in (["--out", tmp_path / "table.csv"], []):
        result = run(model, folder, "--hop", 0, *out)
        assert "hop is in seconds from window to window, above 0" in str(result.exception)
        assert result.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["sounds"]


def test_files_that_came_and_went_meanwhile(
    model: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        dying_after(5, patched)
        run(model, folder, "--out", tmp_path / "table.jsonl")
    (folder / "1.wav").rename(folder / "0a.wav")
    run(model, folder, "--out", tmp_path / "table.jsonl")
    rows = in_jsonl(tmp_path / "table.jsonl")
    assert sorted(row[0] for row in rows) == sorted(map(str, folder.iterdir()))


def test_one_process_at_a_time(model: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    classify = Classifier.classify

    def meanwhile(self: Classifier, *arguments: Any, **options: Any) -> Iterator[Prediction]:
        monkeypatch.undo()
        results.append(run(model, folder, "--out", tmp_path / "table.csv"))
        return classify(self, *arguments, **options)

    monkeypatch.setattr(Classifier, "classify", meanwhile)
    assert run(model, folder, "--out", tmp_path / "table.csv").exit_code == 1
    assert f"{tmp_path / 'table.csv'}: in use by process {os.getpid()}" in str(results[0].exception)
    assert len(in_csv(tmp_path / "table.csv")) == 10


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("table.txt", "table.txt: give a name that ends in .parquet, .csv, .jsonl"),
        ("table", "table: give a name that ends in .parquet, .csv, .jsonl"),
        ("folder.csv", "folder.csv: is a folder; --out is the name of a file"),
    ],
)
def test_places_that_take_no_table(name: str, message: str, model: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    result = run(model, folder, "--out", tmp_path / name)
    assert message in str(result.exception)
    assert run(model, folder, "--out", tmp_path / "table", "--format", "csv").exit_code == 1
    assert len(in_csv(tmp_path / "table")) == 10


def test_parquet_without_pyarrow(model: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before anything is heard."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    asked = dying_after(0, monkeypatch)
    result = run(model, folder, "--out", tmp_path / "table.parquet")
    assert "pip install 'fastloaa[parquet]', or give --out a name that ends in .csv or .jsonl" in str(result.exception)
    assert not asked


def test_names_that_are_not_utf8(model: str, tmp_path: Path) -> None:
    for form, read in READ.items():
        folder = tmp_path / form
        folder.mkdir()
        soundfile.write(tmp_path / "a.wav", np.zeros(4000), 16000)
        (tmp_path / "a.wav").rename(folder / os.fsdecode(b'caf\xe9, "x".wav'))
        assert run(model, folder, "--out", tmp_path / f"a.{form}").exit_code == 0
        (row,) = read(tmp_path / f"a.{form}")
        escaped = f'{folder}/caf\\xe9, "x".wav'  # only JSON holds any name
        assert row[0] == (os.fsdecode(os.fsencode(folder) + b'/caf\xe9, "x".wav') if form == "jsonl" else escaped)


@pytest.mark.slow
def test_killed_for_real(model: str, folder: Path, tmp_path: Path) -> None:
    """By SIGKILL, while it waits for a recording that does not come."""
    expected = of_classifier(model, folder)
    out, partial = tmp_path / "table.csv", tmp_path / "table.csv.partial"
    last = sorted(folder.iterdir())[-1]
    content = last.read_bytes()
    last.unlink()
    os.mkfifo(last)
    code = "import typer; from fastloaa.cli.predict import predict; typer.run(predict)"
    arguments = [
        sys.executable,
        "-c",
        code,
        model,
        *map(str, sorted(folder.iterdir())),
        "--out",
        str(out),
        "--batch-size",
        "1",
    ]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    writing = os.open(last, os.O_WRONLY)  # when the process opens it, nine are answered
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    os.close(writing)
    assert len(partial.read_bytes().splitlines()) == 10
    last.unlink()
    last.write_bytes(content)
    for path in sorted(folder.iterdir())[:-1]:
        path.write_text("no longer a sound")  # it is not read again
    result = run(model, folder, "--out", out)
    assert result.stderr.splitlines()[0] == f"{out}: going on behind 9 of 10 files"
    assert in_csv(out) == expected
