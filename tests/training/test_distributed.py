"""Two processes on the CPU (gloo) train as one does: the same batches, augmentation, metrics and choices.

What differs is the order of float32 sums. Metrics agree to 1e-5 after 15 steps (found: 2e-7), weights to a hundredth
of a step of Adam, which turns rounding in gradients near zero into whole steps elsewhere.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from test_resume import train_until

from fastloaa.data import Sample, load_splits
from fastloaa.files import read_safetensors
from fastloaa.training import Recipe, train
from fastloaa.training.distributed import collate_share, share
from fastloaa.training.randomness import EpochBatches
from helpers.tone_set import small_recipe, write_tones

QUIET = Console(quiet=True)
BOUND = 1e-5
WEIGHT_BOUND = 5e-3 / 100  # of lr
# Batches of 5 in 6 parts: some are empty, none are equal.
RANDOM: dict[str, Any] = {
    "freq_mask": 24,
    "time_mask": 16,
    "noise_and_roll": True,
    "optimiser": "adam",  # with L2 decay: Adam alone would not see gradients of a wrong size
    "weight_decay": 0.1,
    "epochs": 3,
    "batch_size": 5,
    "accumulate": 3,
    "validation": 0.2,
    "frames": 16,  # half of a clip
    "crop": "random",
    "views": 2,
    "checkpoint_every": 3,
    "trackers": ["csv"],
}


@pytest.fixture(scope="module", params=[0.5, 0.0], ids=["mixup", "no mixup"])
def recipe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Of tones with files that cannot be read in all splits. Processes share waveforms only where they mix them."""
    root = write_tones(tmp_path_factory.mktemp("tones") / "data")
    splits = load_splits(root, validation=0.2)
    for clip in (splits.train[3], splits.train[10], splits.validation[0], splits.test[-1]):
        clip.path.write_text("not a sound")
    other = {} if request.param else {"balance": True, "ema": 0.9, "layer_decay": 0.8}
    return small_recipe(root, mixup=request.param, **RANDOM, **other)


@pytest.fixture(scope="module")
def alone(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("alone")
    train(recipe, run, console=QUIET)
    return run


def launch(recipe: Recipe, run: Path) -> str:
    """`fastloaa train` in two processes; what it printed."""
    recipe.save(run.with_suffix(".yaml"))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "fastloaa.cli", "train", "--recipe", str(run.with_suffix(".yaml")), "--out", str(run)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    return process.stdout


def assert_same(run: Path, alone: Path) -> None:
    """All that was reached and chosen, without what a clock has measured."""
    for row, expected in zip(rows(run), rows(alone), strict=True):
        assert row == pytest.approx(expected, abs=BOUND)
    result, expected = (json.loads((folder / "result.json").read_text()) for folder in (run, alone))
    assert (result.pop("processes"), expected.pop("processes")) == (2, 1)
    assert result.pop("test") == pytest.approx(expected.pop("test"), abs=BOUND)
    for values in (result, expected):
        del values["seconds"]
    assert result == expected
    weights, _ = read_safetensors(run / "adapter.safetensors")
    for name, tensor in read_safetensors(alone / "adapter.safetensors")[0].items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=WEIGHT_BOUND)


def rows(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{name: v for name, v in json.loads(line).items() if "second" not in name} for line in lines]


def test_two_processes_are_as_one(recipe: Recipe, alone: Path, tmp_path: Path) -> None:
    printed = launch(recipe, tmp_path / "two")
    assert_same(tmp_path / "two", alone)
    assert {file.name for file in (tmp_path / "two").iterdir()} == {file.name for file in alone.iterdir()}
    for line in ("epoch 3/3", "test accuracy", "19 train"):
        assert printed.count(line) <= 1  # one process speaks
    assert "epoch 3/3" in printed


@pytest.mark.slow
def test_two_processes_go_on_where_one_has_stopped(recipe: Recipe, alone: Path, tmp_path: Path) -> None:
    train_until(8, recipe, tmp_path / "run")
    assert "going on after epoch 1, step 6" in launch(recipe, tmp_path / "run")
    assert_same(tmp_path / "run", alone)


@given(length=st.integers(0, 50), parts=st.integers(1, 9))
def test_shares_make_the_whole_and_are_equal(length: int, parts: int) -> None:
    things = list(range(length))
    shares = [things[share(length, index, parts)] for index in range(parts)]
    assert list(chain.from_iterable(shares)) == things
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("processes", [2, 3, 7])
def test_processes_see_the_batches_of_one(processes: int) -> None:
    def batches(*position: int) -> Sequence[list[int]]:
        order = EpochBatches(23, 6, 5, *position)
        order.start_at(2, 1)
        return list(order)

    own = [batches(index, processes) for index in range(processes)]
    assert [list(chain.from_iterable(shares)) for shares in zip(*own, strict=True)] == batches()


def test_an_empty_share_is_a_batch_of_no_clips() -> None:
    empty = collate_share([], 4)
    full = collate_share([Sample(3, "a", torch.ones(4), torch.ones(10))], 4)
    assert len(empty) == 0
    for name in ("waveform", "lengths", "targets", "indices"):
        joined = torch.cat([getattr(full, name), getattr(empty, name).reshape(0, *getattr(full, name).shape[1:])])
        assert torch.equal(joined, getattr(full, name))
        assert getattr(empty, name).dtype == getattr(full, name).dtype
