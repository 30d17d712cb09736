"""fastloaa train and evaluate, end to end on tones; and how options become a recipe."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

import fastloaa.training
from fastloaa.cli import app
from fastloaa.cli.train import assemble
from fastloaa.data import load_splits
from fastloaa.training import OptionError, Recipe
from helpers.small import small_ast
from helpers.tone_set import write_tones

SMALL_MODEL = (
    *("--backbone", "deit_tiny_distilled_patch16_224", "--frames", "64", "--batch-size", "6"),
    *("--set", "backbone_options={depth: 2, embed_dim: 48, num_heads: 3}", "--set", "freq_mask=0"),
)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def tones(tmp_path: Path) -> Path:
    return write_tones(tmp_path / "tones")


def test_train_and_evaluate(tones: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ("train", "--data", tones, "--out", out, *SMALL_MODEL, "--epochs", 8, "--lr", "5e-3", "--bottleneck", 8)
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert "epoch 8/8" in result.stdout
    saved = json.loads((out / "result.json").read_text())
    assert f"test accuracy {saved['test']['accuracy']:.1%} of 6 clips" in result.stdout
    assert str(out / "adapter.safetensors") in result.stdout

    again = run(*arguments)
    assert again.exit_code == 2
    assert again.stderr.startswith(f"error: {out}: holds a finished run")
    assert run(*arguments, "--overwrite").exit_code == 0

    table = run("evaluate", out)
    assert table.exit_code == 0
    assert f"accuracy {saved['test']['accuracy']:.1%} of 6 clips, loss {saved['test']['loss']:.4f}" in table.stdout
    assert all(label in table.stdout for label in ("300Hz", "1000Hz", "3000Hz"))

    found = json.loads(run("evaluate", out, "--json").stdout)
    assert (found["accuracy"], found["loss"]) == (saved["test"]["accuracy"], saved["test"]["loss"])
    assert found["classes"].keys() == {"300Hz", "1000Hz", "3000Hz"}
    assert found["split"] == "test"
    validation = json.loads(run("evaluate", out, "--json", "--split", "validation").stdout)
    assert (validation["clips"], validation["accuracy"]) == (3, saved["validation_score"])

    # Trained on a GPU in half precision, and looked at where there may be none.
    Recipe.load(out / "recipe.yaml").replace(precision="fp16").save(out / "recipe.yaml")
    half = json.loads(run("evaluate", out, "--json").stdout)
    assert half["loss"] == pytest.approx(saved["test"]["loss"], rel=0.05)


def test_data_that_have_changed_since_the_training(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another clip divides all of them anew, so that training clips come to be tested; of several processes one says
    it."""
    out = tmp_path / "run"
    assert run("train", "--data", tones, "--out", out, *SMALL_MODEL, "--epochs", 1).exit_code == 0
    trained = {clip.path for clip in load_splits(tones).train}
    assert run("evaluate", out).stderr == ""
    shutil.copy(tones / "300Hz" / "0.wav", tones / "300Hz" / "00.wav")
    assert trained & {clip.path for clip in load_splits(tones).test}
    found = run("evaluate", out, "--json")
    assert json.loads(found.stdout)["clips"] == len(load_splits(tones).test)
    assert found.stderr.startswith(f"note: {tones}: has other clips, or in other splits, than when the run was trained")
    assert found.stderr.count("\n") == 1
    assert run("evaluate", out, "--data", tones).stderr == ""  # asked for as other data

    second = {"is_main_process": False, "process_index": 0, "num_processes": 1, "device": torch.device("cpu")}
    state = SimpleNamespace(**second, destroy_process_group=lambda: None)
    monkeypatch.setattr("fastloaa.training.distributed.process_state", lambda: state)
    silent = run("evaluate", out)
    assert (silent.exit_code, silent.output) == (0, "")


def test_evaluating_other_data(tones: Path, tmp_path: Path) -> None:
    backbone = tmp_path / "backbone.safetensors"
    small_ast().save(backbone)
    out = tmp_path / "run"
    trained = run("train", "--data", tones, "--out", out, *SMALL_MODEL, "--epochs", 1, "--weights", backbone)
    assert trained.exit_code == 0, trained.output
    other = write_tones(tmp_path / "other", clips=5)
    broken = load_splits(other).train[0].path
    broken.write_text("not a sound")
    found = json.loads(run("evaluate", out, "--data", other, "--split", "train", "--json").stdout)
    assert found["data"] == str(other)
    clips = load_splits(other).train
    assert found["clips"] == len(clips) - 1
    assert [error.split(":")[0] for error in found["broken_files"]] == [str(broken)]

    (other / "300Hz").rename(other / "301Hz")
    result = run("evaluate", out, "--data", other)
    assert result.exit_code == 2
    assert "other classes than" in result.stderr
    assert "they differ in 300Hz, 301Hz" in result.stderr

    moved = backbone.rename(tmp_path / "moved.safetensors")
    assert "say where they are with --weights PATH" in run("evaluate", out).stderr
    assert run("evaluate", out, "--weights", moved).exit_code == 0


def test_an_empty_split_is_an_error(tones: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run("train", "--data", tones, "--out", out, *SMALL_MODEL, "--epochs", 1, "--set", "validation=0")
    result = run("evaluate", out, "--split", "validation")
    assert (result.exit_code, result.stderr) == (
        2,
        f"error: {tones}: the validation split is empty; choose another --split\n",
    )


def test_interrupted_by_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(recipe: Recipe, out: Path, *, overwrite: bool, console: Console) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fastloaa.training, "train", interrupted)
    result = run("train", "--data", "x", "--out", tmp_path)
    assert result.exit_code == 130
    assert result.stdout == f"stopped; the same command goes on from the last checkpoint in {tmp_path}\n"
    result = run("train", "--data", "x", "--out", tmp_path, "--overwrite")  # which would begin anew once more
    assert result.stdout == (
        f"stopped; the same command without --overwrite goes on from the last checkpoint in {tmp_path}\n"
    )


def test_options_change_the_file_and_assignments_change_both(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("data: a\nlr: 1e-3\nepochs: 7\nweights: w.pth\nmethod_options: {attn: linear, bottleneck: 4}\n")
    recipe = assemble(
        file,
        {"data": "b", "epochs": 9, "seed": None, "weights": "none"},
        {"attn": None, "ffn": "none", "bottleneck": 8},
        ["epochs=11", "method_options.bias=true", "mixup=0.5"],
    )
    options = {"attn": "linear", "ffn": None, "bottleneck": 8, "bias": True}
    assert recipe == Recipe(data="b", lr=1e-3, epochs=11, mixup=0.5, method_options=options)


def test_another_method_leaves_the_options_of_the_files_method_behind(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    Recipe(data="a", method_options={"bottleneck": 4}).save(file)
    assert assemble(file, {"method": "probe"}, {}, []) == Recipe(data="a", method="probe")
    assert assemble(file, {"method": "loaa"}, {}, []) == Recipe(data="a", method_options={"bottleneck": 4})
    with pytest.raises(OptionError, match="unknown probe option 'bottleneck'; there are none"):
        assemble(file, {"method": "probe"}, {"bottleneck": 8}, [])


def test_another_schedule_leaves_the_options_of_the_files_schedule_behind(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("data: a\nschedule_options: {min_lr: 1e-6}\n")
    constant = assemble(file, {}, {}, ["schedule=constant"])
    assert constant == Recipe(data="a", schedule="constant")
    halved = assemble(file, {}, {}, ["schedule=exponential", "schedule_options.factor=0.5"])
    assert halved == Recipe(data="a", schedule="exponential", schedule_options={"factor": 0.5})
    assert assemble(file, {}, {}, ["schedule=cosine"]).schedule_options == {"min_lr": 1e-6}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "x"], "error: recipe: data is missing; it has no default"),
        (["--out", "x", "--data", "nowhere"], "error: nowhere: no such folder"),
        (
            ["--out", "x", "--data", "d", "--method", "magic"],
            "error: unknown method 'magic'; expected loaa, parallel, probe",
        ),
        (["--out", "x", "--data", "d", "--set", "epoch=1"], "did you mean 'epochs'?"),
        (["--out", "x", "--data", "d", "--set", "epoch"], "error: expected key=value, got 'epoch'"),
        (["--out", "x", "--data", "d", "--attn", "[2, 2]"], "of odd sizes; got (2, 2)"),
        (["--out", "x", "--data", "d", "--recipe", "none.yaml"], "error: none.yaml: no such file"),
    ],
)
def test_refusals(arguments: list[str], message: str) -> None:
    result = run("train", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
