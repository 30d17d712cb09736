"""A run that was stopped anywhere and goes on ends as one that was not, bit for bit."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from fastloaa.files import read_safetensors
from fastloaa.training import Recipe, RunError, train
from fastloaa.training.checkpoint import Checkpoint
from fastloaa.training.loop import Trainer
from helpers.small import small_ast
from helpers.tone_set import small_recipe, write_tones

QUIET = Console(quiet=True)
# Everything that draws random numbers; 18 training clips in batches of 5 make 4 steps an epoch, 12 in all.
RANDOM: dict[str, Any] = {
    "mixup": 0.5,
    "freq_mask": 24,
    "time_mask": 16,
    "noise_and_roll": True,
    "method_options": {"bottleneck": 8, "dropout": 0.2},
    "epochs": 3,
    "batch_size": 5,
    "validation": 0.2,
}


class StoppedError(Exception):
    """Stands for whatever ends a run."""


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("tones") / "data", clips=10)


def train_until(step: int, recipe: Recipe, run: Path) -> None:
    """Train, and fail at a step before anything of it has happened."""
    original = Trainer.train_step

    def stopping(self: Trainer, *batch: Any) -> float:
        if self.position.step == step:
            raise StoppedError
        return original(self, *batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_step", stopping)
        with pytest.raises(StoppedError):
            train(recipe, run, console=QUIET)


def outcome(run: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any], list[dict[str, Any]]]:
    """Weights, result and metrics, without what a clock has measured."""
    result = json.loads((run / "result.json").read_text())
    weights, _ = read_safetensors(run / result["weights_file"])
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for entry in (result, *rows):
        for name in ("seconds", "clips_per_second"):
            entry.pop(name, None)
    return weights, result, rows


def assert_same_outcome(left: Path, right: Path) -> None:
    (weights, *rest), (other_weights, *other_rest) = outcome(left), outcome(right)
    assert rest == other_rest
    assert weights.keys() == other_weights.keys()
    for name, tensor in weights.items():
        assert torch.equal(tensor, other_weights[name]), name


METHODS: dict[str, dict[str, Any]] = {
    "loaa": RANDOM | {"accumulate": 2, "average_epochs": 2, "trackers": ["csv"]},
    "full": RANDOM
    | {"method_options": {}, "lr": 1e-3, "frames": 16, "crop": "random", "views": 2}
    | {"balance": True, "ema": 0.9, "layer_decay": 0.75},
}


@pytest.fixture(scope="module", params=METHODS)
def uninterrupted(request: pytest.FixtureRequest, tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp(request.param) / request.param
    train(small_recipe(tones, method=request.param, **METHODS[request.param]), run, console=QUIET)
    return run


@pytest.mark.parametrize("checkpoint_every", [None, 3])
@pytest.mark.parametrize("step", [0, 2, 4, 7, 11])
def test_stopped_at_a_step(
    tones: Path,
    tmp_path: Path,
    uninterrupted: Path,
    step: int,
    checkpoint_every: int | None,
) -> None:
    method = uninterrupted.name
    recipe = small_recipe(tones, method=method, checkpoint_every=checkpoint_every, **METHODS[method])
    train_until(step, recipe, tmp_path)
    checkpoint = tmp_path / "checkpoint.safetensors"
    last_epoch_end, last_interval = step // 4 * 4, step // 3 * 3 if checkpoint_every else 0
    found = Checkpoint.load(checkpoint).position.step if checkpoint.exists() else 0
    assert found == max(last_epoch_end, last_interval)
    torch.rand(7)  # another process would not be in the same state either
    train(recipe, tmp_path, console=QUIET)
    assert_same_outcome(tmp_path, uninterrupted)
    assert not checkpoint.exists()
    assert (tmp_path / "metrics.csv").exists() is (method == "loaa")


def test_broken_files_are_still_counted_after_a_stop(tmp_path: Path) -> None:
    root = write_tones(tmp_path / "data")
    for name in ("300Hz/0.wav", "1000Hz/1.wav", "3000Hz/2.wav"):
        (root / name).write_text("not a sound")
    recipe = small_recipe(root, epochs=2)
    train(recipe, tmp_path / "whole", console=QUIET)
    train_until(8, recipe, tmp_path / "stopped")
    train(recipe, tmp_path / "stopped", console=QUIET)
    assert_same_outcome(tmp_path / "stopped", tmp_path / "whole")
    assert len(outcome(tmp_path / "whole")[1]["broken_files"]) == 3


def test_what_has_changed_meanwhile_is_noticed(tmp_path: Path) -> None:
    root, backbone = write_tones(tmp_path / "data"), tmp_path / "backbone.safetensors"
    small_ast().save(backbone)
    recipe = small_recipe(root, weights=str(backbone))
    train_until(7, recipe, tmp_path / "run")
    with pytest.raises(RunError, match=r"unfinished run with lr 0\.005, now 0\.1"):
        train(recipe.replace(lr=0.1), tmp_path / "run", console=QUIET)
    original = backbone.read_bytes()
    torch.manual_seed(3)
    small_ast().save(backbone)
    with pytest.raises(RunError, match="its backbone has changed since it began"):
        train(recipe, tmp_path / "run", console=QUIET)
    backbone.write_bytes(original)
    (root / "300Hz" / "0.wav").rename(root / "300Hz" / "99.wav")
    with pytest.raises(RunError, match="its data has changed since it began"):
        train(recipe, tmp_path / "run", console=QUIET)
    (root / "300Hz" / "99.wav").rename(root / "300Hz" / "0.wav")
    assert train(recipe, tmp_path / "run", console=QUIET).chosen_epoch


@pytest.mark.slow
def test_killed_at_random_moments(tones: Path, tmp_path: Path) -> None:
    """By another process, three times, after 0 to 0.4 s of training."""
    recipe = small_recipe(tones, **METHODS["loaa"] | {"epochs": 30, "checkpoint_every": 1})
    recipe.save(tmp_path / "recipe.yaml")
    command = [sys.executable, "-m", "fastloaa.cli", "train", "--recipe", str(tmp_path / "recipe.yaml")]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONUNBUFFERED": "1"}
    for moment in (random.Random(seed).uniform(0, 0.4) for seed in range(3)):
        process = subprocess.Popen(
            [*command, "--out", str(tmp_path / "killed")], env=environment, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            if "parameters train" in line:  # the model stands, training begins
                time.sleep(moment)
                process.kill()
        assert process.wait() == -signal.SIGKILL
    train(recipe, tmp_path / "killed", console=QUIET)
    train(recipe, tmp_path / "whole", console=QUIET)
    assert_same_outcome(tmp_path / "killed", tmp_path / "whole")


# What the killed process runs: argv is (recipe, run directory, when to die).
KILLED = """
import os, signal, sys
from rich.console import Console
from fastloaa.files import storage as files
from fastloaa.training import Recipe, checkpoint, loop, train

recipe, run, moment = sys.argv[1:]
die = lambda: os.kill(os.getpid(), signal.SIGKILL)

if moment == "in the middle of an epoch":
    step = loop.Trainer.train_step
    loop.Trainer.train_step = lambda self, *batch: die() if self.position.step == 7 else step(self, *batch)
if moment == "while writing a checkpoint":
    def half(tensors, path, metadata):
        if "position" in metadata["fastloaa"] and '"step": 8' in metadata["fastloaa"]:
            path.write_bytes(b"half a file")
            die()
        save_file(tensors, path, metadata)
    save_file, files.save_file = files.save_file, half
if moment == "between metrics and checkpoint":
    save = loop.Trainer.save
    loop.Trainer.save = lambda self: die() if self.position.epoch == 3 else save(self)
if moment == "between training and result":
    from fastloaa.training import run as run_module
    run_module.evaluate = lambda *_, **__: die()
train(Recipe.load(recipe), run, console=Console(quiet=True))
"""


def killed(recipe: Recipe, run: Path, moment: str) -> None:
    recipe.save(run.parent / "recipe.yaml")
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # sums depend on the threads
    command = [sys.executable, "-c", KILLED, str(run.parent / "recipe.yaml"), str(run), moment]
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert process.returncode == -signal.SIGKILL, process.stderr


def test_killed_in_the_middle_of_an_epoch(tones: Path, tmp_path: Path) -> None:
    recipe = small_recipe(tones, **RANDOM, checkpoint_every=5)
    killed(recipe, tmp_path / "killed", "in the middle of an epoch")
    assert Checkpoint.load(tmp_path / "killed" / "checkpoint.safetensors").position.step == 5
    train(recipe, tmp_path / "killed", console=QUIET)
    train(recipe, tmp_path / "whole", console=QUIET)
    assert_same_outcome(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.slow
def test_killed_again_and_again(tones: Path, tmp_path: Path) -> None:
    recipe = small_recipe(tones, **RANDOM, checkpoint_every=5)
    run = tmp_path / "killed"
    for moment, step in (
        ("in the middle of an epoch", 5),
        ("while writing a checkpoint", 5),
        ("between metrics and checkpoint", 10),
        ("between training and result", 12),
    ):
        killed(recipe, run, moment)
        assert Checkpoint.load(run / "checkpoint.safetensors").position.step == step
    train(recipe, run, console=QUIET)
    train(recipe, tmp_path / "whole", console=QUIET)
    assert_same_outcome(run, tmp_path / "whole")
    assert not list(run.glob(".*"))
