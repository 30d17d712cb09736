"""What saves memory or time changes no result, and does what it says."""

from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from test_resume import assert_same_outcome, outcome
from torch import nn

from fastloaa import LoAA
from fastloaa.backbones import AdaptedBlock
from fastloaa.data import load_splits
from fastloaa.files import read_safetensors
from fastloaa.training import OptionError, evaluate, load_run, train
from fastloaa.training.loop import Trainer
from helpers.small import SMALL
from helpers.tone_set import small_recipe, write_tones

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("tones") / "data")


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> list[Trainer]:
    """Those that have trained, the last one last."""
    seen: list[Trainer] = []
    fit = Trainer.fit
    monkeypatch.setattr(Trainer, "fit", lambda self: seen.append(self) or fit(self))
    return seen


def assert_close(run: Path, other: Path, bound: float) -> None:
    """The metrics of all epochs, to float32 rounding."""
    (_, result, rows), (_, other_result, other_rows) = outcome(run), outcome(other)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    for row, other_row in zip((*rows, result["test"]), (*other_rows, other_result["test"]), strict=True):
        assert row == pytest.approx(other_row, abs=bound)


def test_a_batch_in_parts_is_the_same_batch(tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 27 clips in batches of 5, the last of 2; L2 decay, since Adam alone would not see gradients of a wrong size.
    changes: dict[str, Any] = {"epochs": 3, "batch_size": 5, "mixup": 0.5, "optimiser": "adam", "weight_decay": 0.1}
    train(small_recipe(tones, **changes), tmp_path / "whole", console=QUIET)
    sizes: set[int] = set()
    forward = AdaptedBlock.forward

    def spy(self: AdaptedBlock, x: torch.Tensor, **attention: Any) -> torch.Tensor:
        if self.training:
            sizes.add(len(x))
        return forward(self, x, **attention)

    monkeypatch.setattr(AdaptedBlock, "forward", spy)
    train(small_recipe(tones, accumulate=3, **changes), tmp_path / "parts", console=QUIET)
    assert sizes == {1, 2}
    assert_close(tmp_path / "parts", tmp_path / "whole", 1e-5)


def test_recomputed_activations_bit_for_bit(tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    forward = LoAA.forward

    def spy(self: LoAA, *inputs: torch.Tensor) -> torch.Tensor:
        calls.append(self.training)
        return forward(self, *inputs)

    monkeypatch.setattr(LoAA, "forward", spy)
    counts = []
    for recompute in (False, True):
        calls.clear()
        options = {"bottleneck": 8, "dropout": 0.3}
        recipe = small_recipe(tones, method_options=options, checkpoint_activations=recompute)
        train(recipe, tmp_path / str(recompute), console=QUIET)
        counts.append(sum(calls))
    assert counts == [2 * 5 * 4, 2 * 2 * 5 * 4]  # epochs x batches x adapters, then each of them again
    assert_same_outcome(tmp_path / "True", tmp_path / "False")


def test_frozen_weights_in_bf16_bit_for_bit(tones: Path, tmp_path: Path, trainers: list[Trainer]) -> None:
    for frozen_bf16 in (False, True):
        recipe = small_recipe(tones, precision="bf16", frozen_bf16=frozen_bf16)
        train(recipe, tmp_path / str(frozen_bf16), console=QUIET)
    assert_same_outcome(tmp_path / "True", tmp_path / "False")

    model = trainers[1].model
    matrices = {p for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d) for p in m.parameters()}
    for parameter in model.parameters():
        small = parameter in matrices and not parameter.requires_grad
        assert parameter.dtype == (torch.bfloat16 if small else torch.float32)
    frozen = [sum(p.nbytes for p in t.model.parameters() if not p.requires_grad) for t in trainers]
    assert frozen[1] < 0.55 * frozen[0]

    weights, _ = read_safetensors(tmp_path / "True" / "adapter.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    model = load_run(tmp_path / "True")  # beside the float32 backbone
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    found = evaluate(model, load_splits(tones).test, batch_size=6, precision="bf16")
    assert found.loss == outcome(tmp_path / "True")[1]["test"]["loss"]


def test_bf16_weights_without_bf16_products(tones: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r'frozen_bf16 goes with precision "bf16", this runs in fp32; set precision'):
        train(small_recipe(tones, frozen_bf16=True), tmp_path / "run", console=QUIET)


@pytest.mark.slow
def test_compiled(tones: Path, tmp_path: Path, trainers: list[Trainer]) -> None:
    # 27 clips in batches of 9: one shape, compiled once.
    for compiled in (False, True):
        changes = {"checkpoint_activations": compiled, "compile": compiled, "backbone_options": SMALL | {"depth": 1}}
        recipe = small_recipe(tones, epochs=3, batch_size=9, **changes)
        train(recipe, tmp_path / str(compiled), console=QUIET)
    assert [hasattr(trainer.forward, "_orig_mod") for trainer in trainers] == [False, True]
    assert_close(tmp_path / "True", tmp_path / "False", 1e-4)
