"""fastloaa merge: a run's adapters dissolved into one file."""

from pathlib import Path

import torch
from click.testing import Result
from typer.testing import CliRunner

from fastloaa.cli import app
from fastloaa.export import load_merged, merged_from
from helpers.trained_run import write_run


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["merge", *map(str, arguments)])


@torch.no_grad()
def test_writes_a_model_with_the_runs_answers(tmp_path: Path) -> None:
    model, folder = write_run(tmp_path)
    path = tmp_path / "out" / "merged.safetensors"
    result = run(folder, path)
    assert result.exit_code == 0, result.output
    size, difference = result.stdout.splitlines()
    assert size == f"{path}: {path.stat().st_size / 1e6:.1f} MB, without adapters"
    assert 0 < float(difference.rsplit(" ", 1)[1]) < 1e-5
    merged = load_merged(path)
    assert merged.labels == model.labels
    assert merged_from(merged)["adapt"]["bottleneck"] == 4  # type: ignore[index]
    waveform = torch.randn(2, 9000)
    torch.testing.assert_close(merged(merged.front_end(waveform)), model(model.front_end(waveform)))


def test_one_line_errors(tmp_path: Path) -> None:
    _, folder = write_run(tmp_path)
    result = run(folder, tmp_path / "merged.pt")
    assert result.exit_code == 2
    assert "ends in .safetensors" in result.stderr
    result = run(tmp_path / "nothing", tmp_path / "merged.safetensors")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert not (tmp_path / "merged.safetensors").exists()
