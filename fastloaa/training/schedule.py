"""Schedules: the learning rate as a function of the step, and nothing else."""

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

from fastloaa.inputs.options import OptionError, build, check_types

ScheduleName = Literal["constant", "cosine", "exponential", "steps"]


class Schedule(Protocol):
    """How the learning rate falls once the warm-up is over; the fields of a schedule are its options in a recipe."""

    def rate(self, lr: float, epoch: int, progress: float) -> float:
        """The rate at some step.

        Args:
            lr: the recipe's, the largest.
            epoch: that the step is in, counted from 0.
            progress: share of the steps after the warm-up that are over, 0 <= progress < 1.
        """
        ...


@dataclass(frozen=True)
class Constant:
    """`lr` throughout."""

    def rate(self, lr: float, epoch: int, progress: float) -> float:
        return lr


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from `lr` that would reach `min_lr` with the step after the last."""

    min_lr: float = 0.0

    def __post_init__(self) -> None:
        check_types(self)
        if not self.min_lr >= 0:
            raise OptionError(f"cosine: min_lr is at least 0, got {self.min_lr}")

    def rate(self, lr: float, epoch: int, progress: float) -> float:
        return self.min_lr + (lr - self.min_lr) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class Exponential:
    """Times `factor` with each epoch from `from_epoch` on, counted from 0: AST's recipes (0.85 from epoch 5)."""

    factor: float = 0.85
    from_epoch: int = 5

    def __post_init__(self) -> None:
        check_types(self)
        if not 0 < self.factor <= 1 or self.from_epoch < 0:
            raise OptionError(
                f"exponential: factor is above 0 and at most 1, from_epoch at least 0; "
                f"got {self.factor} and {self.from_epoch}"
            )

    def rate(self, lr: float, epoch: int, progress: float) -> float:
        return lr * self.factor ** max(epoch - self.from_epoch + 1, 0)


@dataclass(frozen=True)
class Steps:
    """Times `factors[i]` from epoch `epochs[i]` on, counted from 0, and `lr` itself before: EPIC-SOUNDS' recipes."""

    epochs: tuple[int, ...] = (10, 20)
    factors: tuple[float, ...] = (0.05, 0.01)

    def __post_init__(self) -> None:
        check_types(self)
        rising = list(self.epochs) == sorted({*self.epochs}) and all(epoch >= 0 for epoch in self.epochs)
        if not rising or len(self.epochs) != len(self.factors) or not all(factor > 0 for factor in self.factors):
            raise OptionError(
                f"steps: epochs rise and factors are above 0, one for each epoch; "
                f"got {list(self.epochs)} and {list(self.factors)}"
            )

    def rate(self, lr: float, epoch: int, progress: float) -> float:
        return lr * (1.0, *self.factors)[bisect_right(self.epochs, epoch)]


SCHEDULES: dict[ScheduleName, type[Schedule]] = dict(
    zip(get_args(ScheduleName), (Constant, Cosine, Exponential, Steps), strict=True)
)


def build_schedule(name: ScheduleName, options: Mapping[str, Any]) -> Schedule:
    """The schedule of that name with its options.

    Raises:
        OptionError: an option that it does not have, or a value that does not fit.
    """
    return build(SCHEDULES[name], options, name)


def learning_rate(
    schedule: Schedule,
    step: int,
    *,
    lr: float,
    epochs: int,
    steps_per_epoch: int,
    warmup_steps: int = 0,
    warmup_lr: float = 0.0,
) -> float:
    """The rate of a step: in equal steps from `warmup_lr` up to what the schedule has after the warm-up, then its own.

    Args:
        step: counted from 0, below `epochs * steps_per_epoch`; `warmup_steps - 1` is the first with the full rate.
    """
    after = max(step, warmup_steps)
    progress = (after - warmup_steps) / max(epochs * steps_per_epoch - warmup_steps, 1)
    rate = schedule.rate(lr, after // steps_per_epoch, progress)
    return rate if step >= warmup_steps else warmup_lr + (rate - warmup_lr) * (step + 1) / warmup_steps
