"""The loop's decisions: which epoch is chosen, what stops it, what each step is given."""

from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from rich.console import Console

from fastloaa import AST, LoAA
from fastloaa.data import ClipDataset, load_splits
from fastloaa.files import read_safetensors
from fastloaa.training import Evaluation, TrainingError, evaluate, load_run, loop, train
from fastloaa.training.checkpoint import copy_of_state
from fastloaa.training.loop import Trainer
from helpers.tone_set import small_recipe, write_tones

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("tones") / "data", clips=8)


def evaluation(**known: Any) -> Evaluation:
    """Of nothing but what is given."""
    return Evaluation(**dict.fromkeys(Evaluation.__dataclass_fields__) | {"broken": ()} | known)


@pytest.mark.parametrize(
    ("accuracies", "losses", "chosen"),
    [
        ([0.2, 0.9, 0.5, 0.4], [1.0, 1.0, 1.0, 1.0], 2),
        ([0.2, 0.9, 0.9, 0.9], [1.0, 0.5, 0.3, 0.4], 3),  # a draw goes to the lower loss
        ([0.9, 0.9, 0.9, 0.9], [0.5, 0.5, 0.5, 0.5], 1),  # and then to the earlier epoch
        ([0.1, 0.2, 0.3, 0.4], [1.0, 1.0, 1.0, 1.0], 4),
    ],
)
def test_best_by_validation(
    tones: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    accuracies: list[float],
    losses: list[float],
    chosen: int,
) -> None:
    seen: list[dict[str, torch.Tensor]] = []

    def scripted(model: torch.nn.Module, *_: Any, **__: Any) -> Evaluation:
        seen.append(copy_of_state(model))
        return evaluation(accuracy=accuracies[len(seen) - 1], loss=losses[len(seen) - 1])

    monkeypatch.setattr(loop, "evaluate_batches", scripted)
    result = train(small_recipe(tones, epochs=4), tmp_path, console=QUIET)
    assert (result.chosen_epoch, result.chosen_by) == (chosen, "validation")
    assert result.validation_score == accuracies[chosen - 1]
    saved, _ = read_safetensors(tmp_path / "adapter.safetensors")
    for epoch, state in enumerate(seen, start=1):
        same = all(torch.equal(saved[name], tensor) for name, tensor in state.items())
        assert same is (epoch == chosen)


@pytest.mark.parametrize("validation", [0, 0.2])
def test_the_last_epochs_are_averaged(tones: Path, tmp_path: Path, validation: float) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    save = Trainer.save

    def spy(self: Trainer) -> None:
        seen.append(copy_of_state(self.model))
        save(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "save", spy)
        recipe = small_recipe(tones, epochs=5, average_epochs=3, validation=validation)
        result = train(recipe, tmp_path, console=QUIET)
    assert (len(seen), result.chosen_epoch, result.chosen_by) == (5, 5, "average")
    saved, _ = read_safetensors(tmp_path / "adapter.safetensors")
    for name, tensor in saved.items():
        expected = torch.stack([state[name] for state in seen[2:]]).double().mean(0)
        torch.testing.assert_close(tensor, expected.float(), rtol=1e-6, atol=1e-7)
        assert not torch.equal(tensor, seen[4][name])
    if validation:
        clips = load_splits(tones, validation=validation).validation
        found = evaluate(load_run(tmp_path), clips, batch_size=recipe.batch_size)
        assert result.validation_score == found.accuracy
    else:
        assert result.validation_score is None


def test_the_epoch_is_chosen_by_the_metric(tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([evaluation(accuracy=a, mAP=m, loss=1.0) for a, m in ((0.9, 0.1), (0.1, 0.9), (0.5, 0.5))])
    monkeypatch.setattr(loop, "evaluate_batches", lambda *_, **__: next(found))
    result = train(small_recipe(tones, epochs=3, metric="mAP"), tmp_path, console=QUIET)
    assert (result.metric, result.chosen_epoch, result.validation_score) == ("mAP", 2, 0.9)


def test_a_loss_that_is_not_finite_names_step_and_files(tones: Path, tmp_path: Path) -> None:
    recipe = small_recipe(tones, lr=1e30, warmup_epochs=0, batch_size=4)
    with pytest.raises(TrainingError) as caught:
        train(recipe, tmp_path, console=QUIET)
    message = str(caught.value)
    assert "the loss is nan at step 1 (epoch 1)" in message or "the loss is inf at step 1 (epoch 1)" in message
    files = message.split("files: ")[1].split(", ")
    assert len(set(files)) == 4
    assert all(Path(file).is_relative_to(tones) and Path(file).exists() for file in files)
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_each_step_is_given_its_learning_rate_and_precision(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates, dtypes, modes = [], set(), set()
    step = Trainer.train_step

    def spy(self: Trainer, *batch: Any) -> float:
        handle = self.model.head[1].register_forward_hook(lambda module, _, out: dtypes.add(out.dtype))
        loss = step(self, *batch)
        handle.remove()
        rates.append({group["lr"] for group in self.optimiser.param_groups})
        modes.add(self.model.training)
        return loss

    monkeypatch.setattr(Trainer, "train_step", spy)
    recipe = small_recipe(tones, epochs=2, batch_size=8, lr=1e-3, warmup_epochs=1, precision="bf16")
    train(recipe, tmp_path, console=QUIET)
    # Two steps of warm-up, two of a cosine over two steps.
    assert [max(rate) for rate in rates] == pytest.approx([0.5e-3, 1e-3, 1e-3, 0.5e-3])
    assert all(len(rate) == 1 for rate in rates)
    assert dtypes == {torch.bfloat16}
    assert modes == {True}


def test_augmentation_is_for_training_alone(tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: dict[str, list[bool]] = {"mixup": [], "noise_and_roll": []}
    trainers: list[Trainer] = []
    for name in calls:
        original = getattr(loop, name)

        def counted(*args: Any, _original: Any = original, _name: str = name, **options: Any) -> Any:
            calls[_name].append(trainers[0].model.training)
            return _original(*args, **options)

        monkeypatch.setattr(loop, name, counted)
    fit = Trainer.fit
    monkeypatch.setattr(Trainer, "fit", lambda self: trainers.append(self) or fit(self))
    train(small_recipe(tones, epochs=1, batch_size=8, mixup=1.0, noise_and_roll=True), tmp_path, console=QUIET)
    assert calls == {"mixup": [True, True], "noise_and_roll": [True, True]}


@pytest.mark.parametrize("mixed", [0.0, 1.0])
def test_what_the_model_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mixed: float) -> None:
    """Padding stays padding whatever clips share a batch, and masks cover the sound in training alone."""
    root = write_tones(tmp_path / "data", clips=8, seconds=0.3)
    for path in root.glob("*/[0-3].wav"):
        samples, rate = soundfile.read(path)
        soundfile.write(path, samples[:2400], rate)  # 0.15 s: 13 frames; 0.3 s: 28 frames
    inputs: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    forward = AST.forward

    def spy(self: AST, log_mel: torch.Tensor) -> torch.Tensor:
        inputs[self.training].append(log_mel)
        return forward(self, log_mel)

    monkeypatch.setattr(AST, "forward", spy)
    recipe = small_recipe(root, epochs=1, mean=-6.0, std=5.0, mixup=mixed, freq_mask=64, time_mask=10)
    train(recipe, tmp_path / "run", console=QUIET)
    padding = 0.6  # (0 - -6) / (2 * 5)
    for training, batches in inputs.items():
        log_mel = torch.cat(batches)
        is_padding = (log_mel - padding).abs() < 1e-6  # [clips, frames, mel_bins]
        assert is_padding[:, 28:].all()
        short = is_padding[:, 13:].flatten(1).all(1)
        assert 0 < short.sum() < len(short)
        assert is_padding[:, :13].any().item() is training


def test_the_gradient_is_clipped(tones: Path, tmp_path: Path) -> None:
    """AdamW's step hardly shows a gradient's size; a second moment does."""

    def largest_moment(grad_clip: float | None, out: Path) -> float:
        moments: list[float] = []
        save = Trainer.save

        def spy(self: Trainer) -> None:
            moments.append(max(state["exp_avg_sq"].max().item() for state in self.optimiser.state.values()))
            save(self)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Trainer, "save", spy)
            train(small_recipe(tones, epochs=1, grad_clip=grad_clip), out, console=QUIET)
        return moments[-1]

    assert largest_moment(1e-4, tmp_path / "clipped") <= 1e-8 < largest_moment(None, tmp_path / "free") / 100


def test_frozen_weights_stay_and_adapters_move(tones: Path, tmp_path: Path) -> None:
    recipe = small_recipe(tones, epochs=1, weight_decay=0.5)
    train(recipe, tmp_path / "run", console=QUIET)
    trained = load_run(tmp_path / "run")
    _, metadata = read_safetensors(tmp_path / "run" / "adapter.safetensors")
    assert metadata["backbone"]["fingerprint"]  # of the weights after training; loading compared it with fresh ones
    ups = [module.up.weight for module in trained.modules() if isinstance(module, LoAA)]
    assert len(ups) == 4
    assert all(up.abs().max() > 0 for up in ups)


@pytest.mark.parametrize("crop", ["start", "random"])
def test_training_hears_other_windows_each_epoch_if_it_shall(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crop: str
) -> None:
    heard: dict[int, set[Any]] = {}
    training = load_splits(tones).train
    original = ClipDataset.__getitem__

    def spy(self: ClipDataset, at: Any) -> Any:
        sample = original(self, at)
        if self.clips == training:
            heard.setdefault(sample.index, set()).add(at[1] if isinstance(at, tuple) else None)
        return sample

    monkeypatch.setattr(ClipDataset, "__getitem__", spy)
    train(small_recipe(tones, crop=crop, frames=16, mean=-8.0, std=4.0), tmp_path, console=QUIET)
    assert len(heard) == len(training)
    for places in heard.values():
        assert len(places) == 2 if crop == "random" else places == {None}


def test_a_moving_average_stands_for_the_weights(tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the weights after every step, computed again in float64; validation, choice and result are its."""
    after: list[dict[str, torch.Tensor]] = []
    step = Trainer.train_step

    def watched(self: Trainer, *batch: Any) -> float:
        if not after:
            after.append(copy_of_state(self.model))
        loss = step(self, *batch)
        after.append(copy_of_state(self.model))
        return loss

    monkeypatch.setattr(Trainer, "train_step", watched)
    recipe = small_recipe(tones, epochs=3, ema=0.6, validation=0.0, schedule="constant")
    result = train(recipe, tmp_path / "last", console=QUIET)
    expected = {name: tensor.double() for name, tensor in after[0].items()}
    for number, state in enumerate(after[1:]):
        decay = min(0.6, (1 + number) / (10 + number))
        expected = {name: decay * expected[name] + (1 - decay) * state[name].double() for name in expected}
    saved, _ = read_safetensors(tmp_path / "last" / "adapter.safetensors")
    assert result.chosen_by == "last epoch"
    for name, tensor in saved.items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert any((tensor - after[-1][name]).abs().max() > 1e-3 for name, tensor in saved.items())

    result = train(small_recipe(tones, ema=0.6), tmp_path / "best", console=QUIET)
    splits = load_splits(tones)
    again = evaluate(load_run(tmp_path / "best"), splits.validation)
    assert (again.accuracy, result.chosen_by) == (result.validation_score, "validation")


def test_groups_have_their_own_rate(tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[tuple[float, float]]] = []
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *arguments: Any) -> Any:
        seen.append([(group["lr"], group["lr_scale"]) for group in self.param_groups])
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    recipe = small_recipe(tones, epochs=1, lr=0.01, layer_decay=0.5, schedule="constant", warmup_epochs=0.0)
    train(recipe, tmp_path, console=QUIET)
    assert seen
    for groups in seen:
        assert [lr for lr, _ in groups] == pytest.approx([0.01 * scale for _, scale in groups])
        assert {scale for _, scale in groups} == {1.0, 0.5, 0.25}
