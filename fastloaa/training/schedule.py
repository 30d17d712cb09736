"""The learning rate as a function of the step, and nothing else."""

import math


def learning_rate(step: int, total_steps: int, warmup_steps: int, lr: float, min_lr: float = 0.0) -> float:
    """Linear warm-up to `lr`, then half a cosine that would reach `min_lr` at `total_steps`.

    Args:
        step: counted from 0, below `total_steps`; step `warmup_steps - 1` is the first with the full rate.
    """
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    return min_lr + (lr - min_lr) * (1 + math.cos(math.pi * progress)) / 2
