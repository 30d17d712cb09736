"""What a finished run reached, and with what."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import fastloaa
from fastloaa.adapters.adapting import trainable_parameters
from fastloaa.data import AudioSplits
from fastloaa.files import read_json, understanding
from fastloaa.models import AST
from fastloaa.training.loop import Chosen, Trainer
from fastloaa.training.precision import resolve_precision
from fastloaa.training.recipe import Recipe
from fastloaa.training.rundir import RunDirectory
from fastloaa.training.scores import Evaluation


@dataclass(frozen=True)
class SplitScore:
    """What the chosen weights reach on the test clips, as in `Evaluation`; None where clips have several labels."""

    clips: int
    loss: float
    mAP: float
    accuracy: float | None
    macro_accuracy: float | None
    macro_f1: float | None


@dataclass(frozen=True)
class Result:
    """What a finished run reached; `result.json` holds the same."""

    method: str
    method_options: dict[str, Any]
    data: str
    classes: list[str]
    trainable_parameters: int
    total_parameters: int
    test: SplitScore
    chosen_epoch: int  # counted from 1
    chosen_by: str  # "validation", "last epoch" or "average" of the epochs up to this one
    metric: str  # that the epoch is chosen by, "accuracy" or "mAP"
    validation_score: float | None  # of that metric, of the weights that the run ends with
    train_clips: int
    seconds: float  # of training steps, without validation and checkpoints
    left_out: list[str]  # what the data set has and no split, a line for each reason
    broken_files: list[str]  # one-line errors of files in the splits that could not be read
    weights_file: str
    device: str
    processes: int
    precision: str
    seed: int
    fastloaa: str
    torch: str
    data_fingerprint: str | None = None  # `AudioSplits.fingerprint`, by which to tell whether the data have changed

    @classmethod
    def load(cls, path: str | Path) -> "Result":
        """Read a `result.json`.

        Raises:
            FileError: missing, damaged, or of a version that notes something else.
        """
        values = read_json(path)
        with understanding(path, "the result of a run"):
            return cls(**values | {"test": SplitScore(**values["test"])})


def build_result(
    model: AST, recipe: Recipe, splits: AudioSplits, trainer: Trainer, chosen: Chosen, test: Evaluation
) -> Result:
    """Gather the result of a run."""
    position, device = trainer.position, trainer.accelerator.device
    return Result(
        method=recipe.method,
        method_options=dict(recipe.method_options),
        data=recipe.data,
        classes=list(splits.classes),
        trainable_parameters=trainable_parameters(model),
        total_parameters=sum(parameter.numel() for parameter in model.parameters()),
        test=SplitScore(**test.summary()),
        chosen_epoch=chosen.epoch,
        chosen_by=chosen.by,
        metric=trainer.metric,
        validation_score=chosen.validation.value if chosen.validation else None,
        train_clips=len(splits.train),
        seconds=position.seconds,
        left_out=list(splits.left_out),
        broken_files=[*position.broken, *position.broken_validation, *test.broken],
        weights_file=RunDirectory("").weights(recipe).name,
        device=device_name(device),
        processes=trainer.accelerator.num_processes,
        precision=resolve_precision(recipe.precision, device),
        seed=recipe.seed,
        fastloaa=fastloaa.__version__,
        torch=torch.__version__,
        data_fingerprint=splits.fingerprint(),
    )


def device_name(device: torch.device) -> str:
    """As people call it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
