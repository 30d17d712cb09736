"""The training loop."""

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader

from fastloaa.audio import SpecAugment, mixup, noise_and_roll
from fastloaa.data import Batch, BrokenFiles, ClipDataset, Sample, start_worker
from fastloaa.models import AST
from fastloaa.training.checkpoint import (
    Checkpoint,
    Position,
    Score,
    average_in,
    changing_state,
    copy_of_state,
    load_state,
)
from fastloaa.training.distributed import WholeBatch, collate_share, gather_sounds, share
from fastloaa.training.errors import TrainingError
from fastloaa.training.evaluation import evaluate_batches
from fastloaa.training.loss import clip_losses
from fastloaa.training.metrics import MetricsFile
from fastloaa.training.moving_average import MovingAverage
from fastloaa.training.optimiser import build_optimiser, load_optimiser_state, optimiser_state
from fastloaa.training.progress import TrainingProgress
from fastloaa.training.randomness import EpochBatches, class_balance, seed_part, seed_step
from fastloaa.training.recipe import Metric, Recipe
from fastloaa.training.rundir import RunDirectory
from fastloaa.training.schedule import learning_rate
from fastloaa.training.scores import Evaluation
from fastloaa.training.trackers import open_trackers


@dataclass(frozen=True)
class Chosen:
    """Which epoch's weights a run ends with, counted from 1, and why."""

    epoch: int
    by: str  # "validation", "last epoch" or "average" of the epochs up to this one
    validation: Score | None


class Trainer:
    """Trains what `requires_grad` in `model`, from the start or from a checkpoint.

    Args:
        model: on the CPU or on the accelerator's device; trained in place.
        recipe: epochs, optimiser, loss, augmentation, seed; what it says of data and model has been done by now.
        train: the training clips.
        validation: batches of the validation clips, from `evaluation_loader`; None chooses the last epoch.
        test: of the test clips, for the recipes that note them after every epoch.
        accelerator: device, precision, processes.
        metric: that chooses the epoch; "mAP" where clips have several labels.
        run: the directory to write to; of several processes, the first one writes.
        origin: fingerprints of what training starts from, kept in the checkpoints.
        console: for progress.
    """

    def __init__(
        self,
        model: AST,
        recipe: Recipe,
        train: ClipDataset,
        *,
        validation: DataLoader[Sample] | None,
        test: DataLoader[Sample] | None = None,
        multi_label: bool,
        metric: Metric,
        accelerator: Accelerator,
        run: RunDirectory,
        origin: dict[str, str],
        console: Console,
    ) -> None:
        self.model, self.recipe, self.accelerator, self.origin, self.run = model, recipe, accelerator, origin, run
        self.multi_label, self.metric = multi_label, metric
        model.backbone.set_grad_checkpointing(recipe.checkpoint_activations)
        # The same model as training runs it: in the accelerator's precision, compiled, with gradients averaged over
        # processes. `self.model` stays the one with attributes and names.
        self.forward, self.optimiser = accelerator.prepare(model, build_optimiser(model, recipe))
        self.schedule = recipe.build_schedule()
        self.order = EpochBatches(
            len(train),
            recipe.batch_size,
            recipe.seed,
            accelerator.process_index,
            accelerator.num_processes,
            windows=recipe.crop == "random",
            weights=class_balance(train.clips, train.num_classes) if recipe.balance else None,
        )
        self.loader = DataLoader(
            train,
            batch_sampler=self.order,
            num_workers=recipe.workers,
            collate_fn=partial(collate_share, num_classes=model.num_classes),
            worker_init_fn=start_worker,
            persistent_workers=recipe.workers > 0,
        )
        self.validation, self.test = validation, test
        self.augment = SpecAugment(recipe.freq_mask, recipe.time_mask, recipe.masks, recipe.mask_fill)
        self.position = Position()
        self.best: dict[str, Tensor] = {}
        self.average: dict[str, Tensor] = {}
        self.ema = None if recipe.ema is None else MovingAverage(model, recipe.ema)
        self.broken = BrokenFiles(len(train))
        self.progress = TrainingProgress(console, recipe.epochs, self.order.per_epoch, metric)

    def fit(self) -> Chosen:
        """Train to the last epoch and leave the chosen weights in the model.

        Raises:
            TrainingError: a loss that is not finite.
            DataError: no training clip can be read.
        """
        writes = self.accelerator.is_main_process
        metrics = MetricsFile(self.run.metrics, self.position.epoch) if writes else None
        trackers = open_trackers(self.recipe.trackers if writes else (), self.run, self.position.step)
        self.model.train()
        with self.progress:
            while self.position.epoch < self.recipe.epochs:
                self._train_epoch()
                row = self._end_epoch()
                if metrics is not None:
                    metrics.append(row)
                    for tracker in trackers:
                        tracker.epoch(metrics.rows)
                self.progress.epoch(row, self.position)
                self.save()
        return self._choose()

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on where the checkpoint was written; what follows is as if nothing had happened.

        Raises:
            FileError: the checkpoint is of another model.
        """
        load_state(self.model, checkpoint.weights)
        load_optimiser_state(self.model, self.optimiser, checkpoint.optimiser)
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(checkpoint.scaler)
        self.position, self.best, self.average = checkpoint.position, checkpoint.best, checkpoint.average
        if self.ema is not None:
            self.ema.load(checkpoint.ema)
        self.broken.errors.update(dict.fromkeys(self.position.broken))
        self.broken.clips.update(self.position.broken_clips)

    def save(self) -> None:
        """Write a checkpoint; the one before stays until it is complete."""
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        Checkpoint(
            position=self.position,
            model_config=self.model.config(),
            origin=self.origin,
            scaler={} if scaler is None else scaler.state_dict(),
            weights=changing_state(self.model),
            optimiser=optimiser_state(self.model, self.optimiser),
            best=self.best,
            average=self.average,
            ema={} if self.ema is None else self.ema.state,
        ).save(self.run.checkpoint)

    def _train_epoch(self) -> None:
        """The rest of the epoch that the position is in."""
        position = self.position
        self.order.start_at(position.epoch, position.batch)
        since = time.perf_counter()
        for own in self.loader:
            batch = WholeBatch.of(own)
            for error in self.broken.add(batch.broken, batch.broken_indices):
                self.progress.say(f"left out: {error}")
                position.broken.append(error)
            if batch.broken:
                position.broken_clips = sorted(self.broken.clips)
            if len(batch):
                position.loss_sum += self.train_step(own.to(self.accelerator.device), batch) * len(batch)
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

    def train_step(self, own: Batch, batch: WholeBatch) -> float:
        """One optimiser step with this process's share of a batch; returns the mean loss of all clips in it."""
        recipe, step, processes = self.recipe, self.position.step, self.accelerator.num_processes
        for group in self.optimiser.param_groups:
            group["lr"] = self._learning_rate(step) * group.get("lr_scale", 1.0)
        log_mel, targets = self._augmented(own, batch)
        total = torch.zeros((), device=self.accelerator.device)
        for part in range(recipe.accumulate):
            rows = share(len(own), part, recipe.accumulate)
            is_last = part == recipe.accumulate - 1
            seed_part(recipe.seed, step, self.accelerator.process_index * recipe.accumulate + part)
            with nullcontext() if is_last else self.accelerator.no_sync(self.forward):
                loss = self._loss_sum(log_mel, targets, rows) / len(batch)
                self.accelerator.backward(loss * processes)  # their gradients are averaged, this makes it the sum
            total += loss.detach()
        if recipe.grad_clip:
            self.accelerator.clip_grad_norm_(self.model.parameters(), recipe.grad_clip)
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.ema is not None:
            self.ema.update(step)
        value = self.accelerator.reduce(total, "sum").item()  # waits for the device, so as late as can be
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss is {value} at step {step} (epoch {self.position.epoch + 1}); lower lr, set grad_clip, or "
                f"look at the batch's files: {', '.join(batch.paths)}"
            )
        return value

    def _augmented(self, own: Batch, batch: WholeBatch) -> tuple[Tensor, Tensor]:
        """Log-mel and targets of this process's clips; every process draws the same, for the whole batch."""
        recipe, front_end = self.recipe, self.model.front_end
        seed_step(recipe.seed, self.position.step)
        waveform, targets = own.waveform, own.targets
        if recipe.mixup:  # with clips of any process
            waveform, targets, lengths = gather_sounds(own, front_end.clip_shape(0))
            silence = front_end.mean if front_end.reads == "log_mel" else 0.0
            waveform, targets = mixup(waveform, targets, recipe.mixup_alpha, recipe.mixup, lengths, silence)
            waveform, targets = waveform[batch.own], targets[batch.own]
        if not len(own):
            return waveform.new_zeros(0, front_end.frames, front_end.mel_bins), targets
        place = {"first": batch.own.start, "total": len(batch)}
        log_mel = front_end(waveform, own.lengths, partial(self.augment, **place))
        return (noise_and_roll(log_mel, **place) if recipe.noise_and_roll else log_mel), targets

    def _loss_sum(self, log_mel: Tensor, targets: Tensor, rows: slice) -> Tensor:
        """Sum of the losses of some rows, with a gradient even where there are none: all processes average theirs."""
        count = rows.stop - rows.start
        log_mel, targets = (part[rows] if count else part.new_zeros(1, *part.shape[1:]) for part in (log_mel, targets))
        losses = clip_losses(self.forward(log_mel), targets, self.recipe.loss, self.recipe.label_smoothing)
        return losses[:count].sum()

    def _learning_rate(self, step: int) -> float:
        recipe, per_epoch = self.recipe, self.order.per_epoch
        return learning_rate(
            self.schedule,
            step,
            lr=recipe.lr,
            epochs=recipe.epochs,
            steps_per_epoch=per_epoch,
            warmup_steps=round(recipe.warmup_epochs * per_epoch),
            warmup_lr=recipe.warmup_lr,
        )

    def _end_epoch(self) -> dict[str, Any]:
        """Validate, keep the best weights, and turn to the next epoch; returns the row of metrics.jsonl."""
        position = self.position
        row = {
            "epoch": position.epoch + 1,
            "step": position.step,
            "lr": self._learning_rate(position.step - 1),
            "train_loss": position.loss_sum / max(position.clips, 1),
            "validation_accuracy": None,
            "validation_mAP": None,
            "validation_loss": None,
            "seconds": position.epoch_seconds,
            "clips_per_second": position.clips / position.epoch_seconds,
        }
        with nullcontext() if self.ema is None else self.ema.in_place():
            self._note_scores(row)
        position.epoch += 1
        position.batch, position.clips, position.loss_sum, position.epoch_seconds = 0, 0, 0.0, 0.0
        averaged = position.epoch - (self.recipe.epochs - (self.recipe.average_epochs or 0))
        if averaged > 0:
            self.average = average_in(self.average, copy_of_state(self.model), averaged)
        return row

    def _note_scores(self, row: dict[str, Any]) -> None:
        """What validation and test clips give goes into the row; the best weights are kept."""
        position = self.position
        if self.validation is not None:
            found = self._evaluate(self.validation)
            score = self._score(found, position.epoch + 1)
            row |= {f"validation_{name}": getattr(found, name) for name in ("accuracy", "mAP", "loss")}
            for error in found.broken:
                if error not in position.broken_validation:
                    self.progress.say(f"left out: {error}")
                    position.broken_validation.append(error)
            if score.beats(position.best):
                position.best, self.best = score, copy_of_state(self.model)
        if self.test is not None:
            tested = self._evaluate(self.test)
            row |= {"test_accuracy": tested.accuracy, "test_mAP": tested.mAP}

    def _evaluate(self, loader: DataLoader[Sample]) -> Evaluation:
        recipe = self.recipe
        return evaluate_batches(
            self.model, loader, loss=recipe.loss, precision=recipe.precision, multi_label=self.multi_label
        )

    def _score(self, found: Evaluation, epoch: int) -> Score:
        """As the choice of an epoch sees it."""
        return Score(epoch, getattr(found, self.metric), found.loss)

    def _choose(self) -> Chosen:
        """Leave the weights in the model that the run ends with."""
        position = self.position
        if self.average:
            load_state(self.model, self.average)
            validation = self.validation
            score = None if validation is None else self._score(self._evaluate(validation), position.epoch)
            return Chosen(position.epoch, "average", score)
        if position.best is None:
            if self.ema is not None:
                load_state(self.model, self.ema.state)
            return Chosen(position.epoch, "last epoch", None)
        load_state(self.model, self.best)
        return Chosen(position.best.epoch, "validation", position.best)
