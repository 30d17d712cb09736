"""`fastloaa download`."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fastloaa.cli import app
from fastloaa.data import download


def test_it_says_what_is_there_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def install(source: download.Source, folder: Path, report: download.Report) -> Path:
        for label in ("a", "b"):
            for i in range(4):
                (folder / label).mkdir(parents=True, exist_ok=True)
                (folder / label / f"{i}.wav").touch()
        report(5, 10)
        report(10, None)
        return folder

    monkeypatch.setattr(download, "install", install)
    result = CliRunner().invoke(app, ["download", "esc50", str(tmp_path / "new")])
    assert result.exit_code == 0
    assert result.stdout == f"{tmp_path / 'new'}: new: 2 classes; clips: 4 train, 2 validation, 2 test\n"
    assert result.stderr.startswith("ESC-50, 0.6 GB, CC BY-NC, from https://github.com/karolpiczak/ESC-50/")


@pytest.mark.parametrize(("name", "reason"), [("audioset", "cannot be fetched by a program"), ("x", "no data set 'x'")])
def test_what_it_cannot_fetch_is_one_line(name: str, reason: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["download", name, str(tmp_path / "new")])
    assert (result.exit_code, result.stdout) == (2, "")
    assert reason in result.stderr
    assert result.stderr.count("\n") == 1
