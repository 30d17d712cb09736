"""Accuracy and loss of a model on clips."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassConfusionMatrix

from fastloaa.audio import FrontEnd
from fastloaa.data import BrokenFiles, Clip, ClipDataset, DataError, Sample, collate
from fastloaa.models import AST
from fastloaa.training.errors import TrainingError
from fastloaa.training.loss import clip_losses
from fastloaa.training.precision import autocast, resolve_precision
from fastloaa.training.recipe import Loss, Precision


@dataclass(frozen=True)
class Evaluation:
    """What a model reaches on some clips.

    Attributes:
        clips: how many were read and counted.
        accuracy: share of them whose largest logit is the right one.
        loss: mean over clips.
        confusion: [classes][classes], how many clips of the class in the row were taken for that in the column.
        broken: one-line errors of files that could not be read; they do not count.
    """

    clips: int
    accuracy: float
    loss: float
    confusion: list[list[int]]
    broken: tuple[str, ...]

    def per_class(self, labels: Sequence[str]) -> dict[str, dict[str, Any]]:
        """For each class: its clips, the share that was recognised (accuracy), and what it was most often taken for."""
        table = {}
        for row, label in enumerate(labels):
            counts = self.confusion[row]
            clips, wrong = sum(counts), [0 if column == row else count for column, count in enumerate(counts)]
            table[label] = {
                "clips": clips,
                "accuracy": counts[row] / clips if clips else None,
                "taken_for": labels[wrong.index(max(wrong))] if any(wrong) else None,
            }
        return table


def evaluate(
    model: AST,
    clips: Sequence[Clip],
    *,
    batch_size: int = 48,
    workers: int = 0,
    loss: Loss = "cross_entropy",
    precision: Precision = "auto",
) -> Evaluation:
    """Run `model` over `clips` where it is, without augmentation; the model's mode is left as it was.

    Args:
        batch_size, workers: of the DataLoader.
        loss: "cross_entropy" or "bce".
        precision: as in a `Recipe`.

    Raises:
        DataError: clips with several labels, or not one that can be read.
        TrainingError: the model's answers are not finite.
    """
    return evaluate_batches(model, evaluation_loader(model, clips, batch_size, workers), loss=loss, precision=precision)


def evaluation_loader(model: AST, clips: Sequence[Clip], batch_size: int, workers: int) -> DataLoader[Sample]:
    """Batches of the clips in their order; a loader that is used again decodes no file twice, memory allowing."""
    return DataLoader(
        clip_dataset(model.front_end, clips, model.num_classes),
        batch_size,
        num_workers=workers,
        collate_fn=collate,
        persistent_workers=workers > 0,
    )


def clip_dataset(front_end: FrontEnd, clips: Sequence[Clip], num_classes: int) -> ClipDataset:
    """The clips at the rate of the front end, cut to what it reads.

    Raises:
        DataError: clips with several labels.
    """
    for clip in clips:
        if len(clip.labels) != 1:
            raise DataError(
                f"{clip.path} has {len(clip.labels)} labels; training and accuracy expect one for each clip"
            )
    return ClipDataset(clips, front_end.sample_rate, num_classes, front_end.samples / front_end.sample_rate)


@torch.inference_mode()
def evaluate_batches(model: AST, loader: DataLoader[Sample], loss: Loss, precision: Precision) -> Evaluation:
    """`evaluate` over a loader from `evaluation_loader`."""
    device = next(model.parameters()).device
    precision = resolve_precision(precision, device)
    confusion = MulticlassConfusionMatrix(model.num_classes).to(device)
    losses: list[Tensor] = []
    broken = BrokenFiles(len(loader.dataset))  # type: ignore[arg-type]
    was_training = model.training
    model.eval()
    try:
        for batch in loader:
            broken.add(batch)
            if len(batch):
                batch = batch.to(device)
                log_mel = model.front_end(batch.waveform, batch.lengths)
                with autocast(precision, device):
                    logits = model(log_mel).float()
                confusion.update(logits, batch.targets.argmax(1))
                losses.append(clip_losses(logits, batch.targets, loss))
    finally:
        model.train(was_training)
    mean_loss = torch.cat(losses).cpu().double().mean().item()
    if not math.isfinite(mean_loss):
        raise TrainingError(f"the model's loss is {mean_loss}, expected a finite one; its weights are not usable")
    counts = confusion.compute().cpu()
    return Evaluation(
        clips=int(counts.sum()),
        accuracy=int(counts.trace()) / int(counts.sum()),
        loss=mean_loss,
        confusion=counts.tolist(),
        broken=tuple(broken.errors),
    )
