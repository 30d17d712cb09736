"""What a user sees while a model trains: a live bar in a terminal, plain lines elsewhere."""

from datetime import timedelta
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from typing_extensions import Self

from fastloaa.training.checkpoint import Position
from fastloaa.training.recipe import Metric


def show(value: float, metric: Metric) -> str:
    """A metric as people write it: `83.3%`, `mAP 0.412`."""
    return f"{value:.1%}" if metric == "accuracy" else f"{metric} {value:.3f}"


class TrainingProgress:
    """A bar for the epoch under way, and a line for each one that is complete.

    Args:
        console: where to; the bar is left out where it is no terminal.
        epochs, steps_per_epoch: how much there is to do.
        metric: of the validation, to be shown.
    """

    def __init__(self, console: Console, epochs: int, steps_per_epoch: int, metric: Metric = "accuracy") -> None:
        self.console, self.epochs, self.steps_per_epoch, self.metric = console, epochs, steps_per_epoch, metric
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self.task = self.bar.add_task("", total=steps_per_epoch, epoch="")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def step(self, position: Position) -> None:
        """Show the epoch so far."""
        if position.clips:
            rate = f"{position.clips / position.epoch_seconds:.0f} clips/s"
            description = f"loss {position.loss_sum / position.clips:.4f}  {rate}  {self._remaining(position)} left"
            epoch = f"{position.epoch + 1}/{self.epochs}"
            self.bar.update(self.task, completed=position.batch, description=description, epoch=epoch)

    def epoch(self, row: dict[str, Any], position: Position) -> None:
        """A line for an epoch that is complete, from its row of metrics.jsonl."""
        words = [f"epoch {row['epoch']:>{len(str(self.epochs))}}/{self.epochs}", f"loss {row['train_loss']:.4f}"]
        if (value := row[f"validation_{self.metric}"]) is not None:
            words.append(f"validation {show(value, self.metric)} (loss {row['validation_loss']:.4f})")
        words += [f"{row['clips_per_second']:.0f} clips/s", f"{self._remaining(position)} left"]
        self.say("  ".join(words))

    def say(self, line: str) -> None:
        """A line above the bar."""
        self.console.print(line, soft_wrap=True, markup=False, highlight=False)

    def _remaining(self, position: Position) -> timedelta:
        """Time for the steps to come, at the pace so far."""
        steps = self.epochs * self.steps_per_epoch - position.step
        return timedelta(seconds=round(position.seconds / max(position.step, 1) * steps))
