"""What a user sees."""

from io import StringIO

from rich.console import Console

from fastloaa.training.checkpoint import Position
from fastloaa.training.progress import TrainingProgress

ROW = {"epoch": 3, "train_loss": 0.5, "validation_accuracy": 0.75, "validation_loss": 0.6, "clips_per_second": 40.0}
HALFWAY = Position(epoch=2, step=50, batch=10, clips=40, loss_sum=60.0, epoch_seconds=2.0, seconds=100.0)


def shown(terminal: bool) -> str:
    out = StringIO()
    console = Console(file=out, force_terminal=terminal, width=100, legacy_windows=False, color_system=None)
    with TrainingProgress(console, epochs=10, steps_per_epoch=20) as progress:
        progress.step(HALFWAY)
        progress.bar.refresh()
        progress.say("left out: [odd] name.wav")
        progress.epoch(ROW, HALFWAY)
        progress.epoch(ROW | {"validation_accuracy": None}, HALFWAY)
    return out.getvalue()


def test_plain_lines_away_from_a_terminal() -> None:
    # 50 of 200 steps took 100 s, so 300 s remain.
    assert shown(terminal=False).splitlines() == [
        "left out: [odd] name.wav",
        "epoch  3/10  loss 0.5000  validation 75.0% (loss 0.6000)  40 clips/s  0:05:00 left",
        "epoch  3/10  loss 0.5000  40 clips/s  0:05:00 left",
    ]


def test_a_bar_in_a_terminal() -> None:
    text = shown(terminal=True)
    assert "epoch 3/10" in text
    assert "10/20" in text
    assert "loss 1.5000  20 clips/s  0:05:00 left" in text  # 60 over 40 clips, 40 clips in 2 s
    assert "epoch  3/10  loss 0.5000  validation 75.0%" in text


def test_mean_average_precision_is_no_percentage() -> None:
    out = StringIO()
    progress = TrainingProgress(Console(file=out), 5, 20, "mAP")
    progress.epoch(ROW | {"validation_accuracy": None, "validation_mAP": 0.4125}, HALFWAY)
    assert "validation mAP 0.412 (loss 0.6000)" in out.getvalue()
