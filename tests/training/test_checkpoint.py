"""Checkpoints as files, and the state they take from a model."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fastloaa import adapt
from fastloaa.files import FileError
from fastloaa.training.checkpoint import (
    Checkpoint,
    Position,
    Score,
    changing_state,
    copy_of_state,
    load_state,
)
from helpers.checkpoints import CHECKPOINT
from helpers.small import small_ast


@pytest.mark.parametrize("position", [CHECKPOINT.position, Position()])
def test_round_trip(tmp_path: Path, position: Position) -> None:
    path = tmp_path / "checkpoint.safetensors"
    replace(CHECKPOINT, position=position).save(path)
    found = Checkpoint.load(path)
    assert found.position == position
    assert (found.model_config, found.origin, found.scaler) == ({"frames": 64}, {"data": "abc"}, {"scale": 65536.0})
    for part in ("weights", "optimiser", "best", "average"):
        saved, loaded = getattr(CHECKPOINT, part), getattr(found, part)
        assert saved.keys() == loaded.keys()
        assert all(torch.equal(saved[name], loaded[name]) for name in saved)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    small_ast().save(path)
    with pytest.raises(FileError, match=r"not a checkpoint; start again with --overwrite"):
        Checkpoint.load(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FileError, match="not a readable safetensors file"):
        Checkpoint.load(path)


@pytest.mark.parametrize(
    ("score", "other", "expected"),
    [
        (Score(1, 0.0, 9.0), None, True),
        (Score(2, 0.6, 9.0), Score(1, 0.5, 0.1), True),
        (Score(2, 0.5, 0.1), Score(1, 0.5, 0.2), True),
        (Score(2, 0.5, 0.2), Score(1, 0.5, 0.2), False),
        (Score(2, 0.4, 0.0), Score(1, 0.5, 9.0), False),
    ],
)
def test_which_score_is_better(score: Score, other: Score | None, expected: bool) -> None:
    assert score.beats(other) is expected


def test_a_copy_does_not_alias_the_model() -> None:
    model = adapt(small_ast(), bottleneck=4)
    copy = copy_of_state(model)
    assert copy.keys() == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    before = {name: tensor.clone() for name, tensor in copy.items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert all(torch.equal(copy[name], before[name]) for name in copy)
    assert not any(torch.equal(tensor, before[name]) for name, tensor in changing_state(model).items())
    load_state(model, copy)
    assert all(torch.equal(tensor, before[name]) for name, tensor in changing_state(model).items())


def test_state_of_another_model_is_refused() -> None:
    state = copy_of_state(adapt(small_ast(), ffn=None, bottleneck=4))
    with pytest.raises(FileError, match=r"differ in backbone\.blocks\.0\.loaa_ffn\.down\.weight"):
        load_state(adapt(small_ast(), bottleneck=4), state)
