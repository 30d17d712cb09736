"""The losses a recipe can name."""

import torch.nn.functional as F
from torch import Tensor

from fastloaa.probabilities import Probabilities
from fastloaa.training.recipe import Loss

PROBABILITIES: dict[Loss, Probabilities] = {"cross_entropy": "softmax", "bce": "sigmoid"}  # that each loss is of


def clip_losses(logits: Tensor, targets: Tensor, loss: Loss, label_smoothing: float = 0.0) -> Tensor:
    """Loss of each clip, float32 [batch]; binary cross-entropy ("bce") is averaged over the classes.

    Args:
        logits: [batch, classes].
        targets: [batch, classes], one-hot, or mixed by mixup.
        label_smoothing: for "cross_entropy" alone.
    """
    logits = logits.float()
    if loss == "bce":
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)
    return F.cross_entropy(logits, targets, reduction="none", label_smoothing=label_smoothing)
