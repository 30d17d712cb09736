"""What a model reaches on clips, from its logits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multilabel_average_precision,
)

from fastloaa.probabilities import to_probabilities
from fastloaa.training.loss import PROBABILITIES
from fastloaa.training.recipe import Loss


@dataclass(frozen=True)
class Evaluation:
    """What a model reaches on some clips. Where clips may have several labels, what counts the right one is None.

    Attributes:
        clips: how many were read and counted.
        loss: mean over clips.
        mAP: mean average precision, over the classes that have clips.
        accuracy: share of the clips whose largest logit is the right one.
        macro_accuracy: mean over the classes that have clips of the share of each that was recognised.
        macro_f1: mean F1 score over the classes that have clips or were answered.
        average_precision: of each class; None without clips.
        positives: clips of each class.
        confusion: [classes, classes], how many clips of the class in the row were taken for that in the column.
        broken: one-line errors of files that could not be read; they do not count.
    """

    clips: int
    loss: float
    mAP: float
    accuracy: float | None
    macro_accuracy: float | None
    macro_f1: float | None
    average_precision: list[float | None]
    positives: list[int]
    confusion: list[list[int]] | None
    broken: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """The scalars by name."""
        names = ("clips", "accuracy", "macro_accuracy", "macro_f1", "mAP", "loss")
        return {name: getattr(self, name) for name in names}

    def per_class(self, labels: Sequence[str]) -> dict[str, dict[str, Any]]:
        """For each class: its clips, its average precision and, where each clip has one label, the share that was
        recognised (accuracy) and what it was most often taken for.
        """
        table: dict[str, dict[str, Any]] = {}
        for index, label in enumerate(labels):
            row: dict[str, Any] = {"clips": self.positives[index], "average_precision": self.average_precision[index]}
            if self.confusion is not None:
                counts, clips = self.confusion[index], self.positives[index]
                wrong = [0 if column == index else count for column, count in enumerate(counts)]
                row["accuracy"] = counts[index] / clips if clips else None
                row["taken_for"] = labels[wrong.index(max(wrong))] if any(wrong) else None
            table[label] = row
        return table


def score(
    logits: Tensor, targets: Tensor, losses: Tensor, *, loss: Loss, multi_label: bool, broken: tuple[str, ...] = ()
) -> Evaluation:
    """Everything that is known of a model from its answers to at least one clip.

    Average precision ranks the clips by the model's probability of a class: the sigmoid where the loss is "bce", else
    the softmax.

    Args:
        logits: float32 [clips, classes].
        targets: [clips, classes], 0 or 1, with one 1 for each clip unless `multi_label`.
        losses: [clips].
    """
    classes, targets = logits.shape[1], targets.long()
    positives = targets.sum(0)
    present = positives > 0
    probabilities = to_probabilities(logits, PROBABILITIES[loss])
    # torchmetrics would count a class without clips as 0, and refuses to be asked for one class alone.
    found = multilabel_average_precision(
        probabilities[:, present], targets[:, present], int(present.sum()), average="none", validate_args=False
    )
    average_precision = torch.full((classes,), torch.nan, device=logits.device).masked_scatter(present, found)
    return Evaluation(
        clips=len(logits),
        loss=losses.cpu().double().mean().item(),
        mAP=found.double().mean().item(),
        average_precision=[None if math.isnan(value) else value for value in average_precision.tolist()],
        positives=positives.tolist(),
        broken=broken,
        **(_NO_SINGLE_ANSWER if multi_label else _single_answers(logits.argmax(1), targets.argmax(1), classes)),
    )


_NO_SINGLE_ANSWER: dict[str, None] = dict.fromkeys(("accuracy", "macro_accuracy", "macro_f1", "confusion"))


def _single_answers(answers: Tensor, labels: Tensor, classes: int) -> dict[str, Any]:
    """Accuracies, F1 and confusion where each clip has one label."""
    confusion = multiclass_confusion_matrix(answers, labels, classes)
    recognised = confusion.diagonal().double() / confusion.sum(1)  # NaN for classes without clips
    return {
        "accuracy": int(confusion.trace()) / len(labels),
        "macro_accuracy": recognised.nanmean().item(),
        "macro_f1": multiclass_f1_score(answers, labels, classes, average="macro").item(),
        "confusion": confusion.tolist(),
    }
