"""fastloaa attention: a picture from a run and a clip."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import Result
from matplotlib.image import imread
from typer.testing import CliRunner

from fastloaa import AST, adapt, save_adapter
from fastloaa.cli import app
from fastloaa.export import merge, save_merged
from fastloaa.training import Recipe
from helpers.trained_run import write_run


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "dog.wav", np.random.default_rng(0).normal(size=9000) * 0.1, 22050)
    return tmp_path / "dog.wav"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["attention", *map(str, arguments)])


def test_before_and_after(tmp_path: Path, clip: Path) -> None:
    _, folder = write_run(tmp_path)
    picture = tmp_path / "new" / "dog.png"
    result = run(folder, clip, picture, "--time", 0.1, "--time", 0.3)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{picture}: before adaptation, after adaptation (loaa); at 0.1, 0.3 s\n"
    height, width, _ = imread(picture).shape
    assert width > height > 600
    assert [file.name for file in picture.parent.iterdir()] == ["dog.png"]


def test_other_runs_get_columns_of_their_own(tmp_path: Path, clip: Path) -> None:
    """A merged model and another run, as it is after adaptation, to the right of the first run's two columns."""
    model, folder = write_run(tmp_path)
    merged = tmp_path / "merged.safetensors"
    save_merged(merge(model), merged)
    two = run(folder, clip, tmp_path / "two.png", "--time", 0.1)
    four = run(folder, clip, tmp_path / "four.png", "--time", 0.1, "--beside", merged, "--beside", folder)
    assert (two.exit_code, four.exit_code) == (0, 0), four.output
    columns = f"before adaptation, after adaptation (loaa), {merged}, {folder}"
    assert four.stdout == f"{tmp_path / 'four.png'}: {columns}; at 0.1 s\n"
    assert imread(tmp_path / "four.png").shape[1] > 1.5 * imread(tmp_path / "two.png").shape[1]


def test_the_loudest_moment_without_a_time(tmp_path: Path, clip: Path) -> None:
    _, folder = write_run(tmp_path)
    result = run(folder, clip, tmp_path / "dog.svg", "--layer", 0)
    assert result.exit_code == 0, result.output
    moment = float(result.stdout.split(" at ")[1].removesuffix(" s\n"))
    assert moment in (0.08, 0.24, 0.4), "the middle of a time step that has sound"
    assert (tmp_path / "dog.svg").read_text().startswith("<?xml")


def test_a_merged_model_has_one_column(tmp_path: Path, clip: Path) -> None:
    model, _ = write_run(tmp_path)
    save_merged(merge(model), tmp_path / "merged.safetensors")
    result = run(tmp_path / "merged.safetensors", clip, tmp_path / "dog.png", "--time", 0.1)
    assert result.stdout == f"{tmp_path / 'dog.png'}: merged: no adapters to take out; at 0.1 s\n"


def test_a_linear_probe_has_one_column(tmp_path: Path, clip: Path) -> None:
    _, folder = write_run(tmp_path)
    replace(Recipe.load(folder / "recipe.yaml"), method="probe", method_options={}).save(folder / "recipe.yaml")
    probe = adapt(AST.load(tmp_path / "backbone.safetensors"), attn=None, ffn=None)
    save_adapter(probe, folder / "adapter.safetensors")
    result = run(folder, clip, tmp_path / "dog.png", "--time", 0.1)
    assert result.stdout == f"{tmp_path / 'dog.png'}: probe: no adapters to take out; at 0.1 s\n"


def test_one_line_errors(tmp_path: Path, clip: Path) -> None:
    _, folder = write_run(tmp_path)
    picture = tmp_path / "dog.png"
    for arguments, words in (
        ((folder, clip, tmp_path / "dog.jpg"), "ends in .png, .pdf or .svg"),
        ((folder, clip, picture, "--layer", 1), "layer 1 does not exist, the model has 1"),
        ((folder, clip, picture, "--time", 9), "expected a time from 0 to 0.64 s"),
        ((folder, tmp_path / "cat.wav", picture), "cat.wav: no such file"),
        ((tmp_path / "nothing", clip, picture), "no recipe.yaml in it"),
        ((clip, clip, picture), "not a readable safetensors file"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2, result.output
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        assert words in result.stderr
    assert not list(tmp_path.glob("*dog.[pj]*"))
