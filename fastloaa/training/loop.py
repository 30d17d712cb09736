"""The training loop."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader

from fastloaa.audio import SpecAugment, mixup, noise_and_roll
from fastloaa.data import Batch, BrokenFiles, ClipDataset, Sample, collate
from fastloaa.models import AST
from fastloaa.training.checkpoint import Checkpoint, Position, Score, changing_state, copy_of_state, load_state
from fastloaa.training.errors import TrainingError
from fastloaa.training.evaluation import evaluate_batches
from fastloaa.training.loss import clip_losses
from fastloaa.training.metrics import MetricsFile
from fastloaa.training.optimiser import build_optimiser, load_optimiser_state, optimiser_state
from fastloaa.training.progress import TrainingProgress
from fastloaa.training.randomness import EpochBatches, seed_step
from fastloaa.training.recipe import Recipe
from fastloaa.training.schedule import learning_rate


@dataclass(frozen=True)
class Chosen:
    """Which epoch's weights a run ends with, counted from 1, and why."""

    epoch: int
    by: str  # "validation" or "last epoch"
    validation: Score | None


class Trainer:
    """Trains what `requires_grad` in `model`, from the start or from a checkpoint.

    Args:
        model: on the CPU or on the accelerator's device; trained in place.
        recipe: epochs, optimiser, loss, augmentation, seed; what it says of data and model has been done by now.
        train: the training clips.
        validation: batches of the validation clips, from `evaluation_loader`; None chooses the last epoch.
        accelerator: device and precision.
        origin: fingerprints of what training starts from, kept in the checkpoints.
        checkpoint_path, metrics_path: the files to write.
        console: for progress.
    """

    def __init__(
        self,
        model: AST,
        recipe: Recipe,
        train: ClipDataset,
        *,
        validation: DataLoader[Sample] | None,
        accelerator: Accelerator,
        origin: dict[str, str],
        checkpoint_path: Path,
        metrics_path: Path,
        console: Console,
    ) -> None:
        self.model, self.recipe, self.accelerator, self.origin = model, recipe, accelerator, origin
        self.checkpoint_path, self.metrics_path = checkpoint_path, metrics_path
        # The same model under the accelerator's precision; `self.model` stays the one with attributes and names.
        self.forward, self.optimiser = accelerator.prepare(model, build_optimiser(model, recipe))
        self.order = EpochBatches(len(train), recipe.batch_size, recipe.seed)
        self.loader = DataLoader(
            train,
            batch_sampler=self.order,
            num_workers=recipe.workers,
            collate_fn=collate,
            persistent_workers=recipe.workers > 0,
        )
        self.validation = validation
        self.augment = SpecAugment(recipe.freq_mask, recipe.time_mask)
        self.position = Position()
        self.best: dict[str, Tensor] = {}
        self.broken = BrokenFiles(len(train))
        self.progress = TrainingProgress(console, recipe.epochs, self.order.per_epoch)

    def fit(self) -> Chosen:
        """Train to the last epoch and leave the chosen weights in the model.

        Raises:
            TrainingError: a loss that is not finite.
            DataError: no training clip can be read.
        """
        metrics = MetricsFile(self.metrics_path, self.position.epoch)
        self.model.train()
        with self.progress:
            while self.position.epoch < self.recipe.epochs:
                self._train_epoch()
                row = self._end_epoch()
                metrics.append(row)
                self.progress.epoch(row, self.position)
                self.save()
        if self.position.best is None:
            return Chosen(self.position.epoch, "last epoch", None)
        load_state(self.model, self.best)
        return Chosen(self.position.best.epoch, "validation", self.position.best)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on where the checkpoint was written; what follows is as if nothing had happened.

        Raises:
            FileError: the checkpoint is of another model.
        """
        load_state(self.model, checkpoint.weights)
        load_optimiser_state(self.model, self.optimiser, checkpoint.optimiser)
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(checkpoint.scaler)
        self.position, self.best = checkpoint.position, checkpoint.best
        self.broken.errors.update(dict.fromkeys(self.position.broken))

    def save(self) -> None:
        """Write a checkpoint; the one before stays until it is complete."""
        scaler = self.accelerator.scaler
        Checkpoint(
            position=self.position,
            model_config=self.model.config(),
            origin=self.origin,
            scaler={} if scaler is None else scaler.state_dict(),
            weights=changing_state(self.model),
            optimiser=optimiser_state(self.model, self.optimiser),
            best=self.best,
        ).save(self.checkpoint_path)

    def _train_epoch(self) -> None:
        """The rest of the epoch that the position is in."""
        position = self.position
        self.order.start_at(position.epoch, position.batch)
        since = time.perf_counter()
        for batch in self.loader:
            for error in self.broken.add(batch):
                self.progress.say(f"left out: {error}")
                position.broken.append(error)
            if len(batch):
                position.loss_sum += self._step(batch) * len(batch)
                position.clips += len(batch)
            position.batch += 1
            position.step += 1
            now = time.perf_counter()
            position.epoch_seconds += now - since
            position.seconds += now - since
            self.progress.step(position)
            if self.recipe.checkpoint_every and position.step % self.recipe.checkpoint_every == 0:
                self.save()
            since = time.perf_counter()

    def _step(self, batch: Batch) -> float:
        """One optimiser step; returns the mean loss of its clips."""
        recipe, step = self.recipe, self.position.step
        seed_step(recipe.seed, step)
        for group in self.optimiser.param_groups:
            group["lr"] = self._learning_rate(step)
        files, batch = batch.paths, batch.to(self.accelerator.device)
        waveform, targets = batch.waveform, batch.targets
        if recipe.mixup:
            waveform, targets = mixup(waveform, targets, recipe.mixup_alpha, recipe.mixup, batch.lengths)
        log_mel = self.model.front_end(waveform, batch.lengths, self.augment)
        if recipe.noise_and_roll:
            log_mel = noise_and_roll(log_mel)
        loss = clip_losses(self.forward(log_mel), targets, recipe.loss, recipe.label_smoothing).mean()
        self.accelerator.backward(loss)
        if recipe.grad_clip:
            self.accelerator.clip_grad_norm_(self.model.parameters(), recipe.grad_clip)
        self.optimiser.step()
        self.optimiser.zero_grad()
        value = loss.item()  # waits for the device, so as late as can be
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss is {value} at step {step} (epoch {self.position.epoch + 1}); lower lr, set grad_clip, or "
                f"look at the batch's files: {', '.join(files)}"
            )
        return value

    def _learning_rate(self, step: int) -> float:
        recipe, per_epoch = self.recipe, self.order.per_epoch
        warmup_steps = round(recipe.warmup_epochs * per_epoch)
        return learning_rate(step, recipe.epochs * per_epoch, warmup_steps, recipe.lr, recipe.min_lr)

    def _end_epoch(self) -> dict[str, Any]:
        """Validate, keep the best weights, and turn to the next epoch; returns the row of metrics.jsonl."""
        position = self.position
        row = {
            "epoch": position.epoch + 1,
            "step": position.step,
            "lr": self._learning_rate(position.step - 1),
            "train_loss": position.loss_sum / position.clips,
            "validation_accuracy": None,
            "validation_loss": None,
            "seconds": position.epoch_seconds,
            "clips_per_second": position.clips / position.epoch_seconds,
        }
        if self.validation is not None:
            found = evaluate_batches(self.model, self.validation, self.recipe.loss, self.recipe.precision)
            row |= {"validation_accuracy": found.accuracy, "validation_loss": found.loss}
            for error in found.broken:
                if error not in position.broken_validation:
                    self.progress.say(f"left out: {error}")
                    position.broken_validation.append(error)
            score = Score(position.epoch + 1, found.accuracy, found.loss)
            if score.beats(position.best):
                position.best, self.best = score, copy_of_state(self.model)
        position.epoch += 1
        position.batch, position.clips, position.loss_sum, position.epoch_seconds = 0, 0, 0.0, 0.0
        return row
