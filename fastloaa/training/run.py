"""A whole run: train, choose, test once; and its result loaded again."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from rich.console import Console
from rich.progress import track
from torch.utils.data import DataLoader

import fastloaa
from fastloaa.adapt import trainable_parameters
from fastloaa.data import AudioSplits, collate, load_splits
from fastloaa.files import write_json
from fastloaa.models import AST
from fastloaa.training.build import build_front_end, build_model, open_config
from fastloaa.training.checkpoint import Checkpoint
from fastloaa.training.errors import RunError, TrainingError
from fastloaa.training.evaluation import clip_dataset, evaluate, evaluation_loader
from fastloaa.training.loop import Chosen, Trainer
from fastloaa.training.measure import measure_normalisation
from fastloaa.training.precision import resolve_precision
from fastloaa.training.recipe import Recipe
from fastloaa.training.rundir import RunDirectory


@dataclass(frozen=True)
class SplitScore:
    """What the chosen weights reach on the test clips."""

    accuracy: float
    loss: float
    clips: int


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
    chosen_by: str  # "validation" or "last epoch"
    validation_accuracy: float | None
    train_clips: int
    seconds: float  # of training steps, without validation and checkpoints
    broken_files: list[str]  # one-line errors of files left out, from all splits
    weights_file: str
    device: str
    precision: str
    seed: int
    fastloaa: str
    torch: str


def train(recipe: Recipe, out: str | Path, *, overwrite: bool = False, console: Console | None = None) -> Result:
    """Train, choose the epoch, evaluate the test split once with the chosen weights, and leave it all in `out`.

    A run that was interrupted goes on when the same recipe is given the same folder; on the CPU its final weights are
    then bit for bit those of a run that was not.

    Args:
        out: the run directory, see `RunDirectory`.
        overwrite: replace what is in it.
        console: for progress; `rich.console.Console(quiet=True)` for none, standard output by default.

    Raises:
        OptionError, DataError, RunError, TrainingError, FileError, WeightsError: one line each.
    """
    console = console or Console()
    splits = load_splits(recipe.data, test_fold=recipe.test_fold, validation=recipe.validation, seed=recipe.seed)
    accelerator = _accelerator(recipe)
    run = RunDirectory(out)
    checkpoint = run.claim(recipe, overwrite)
    _say(console, splits.summary())

    origin = {"data": _fingerprint(splits)}
    _check_origin(run, origin, checkpoint)
    config = open_config(recipe, splits) if checkpoint is None else checkpoint.model_config
    front_end = build_front_end(config)
    clips = clip_dataset(front_end, splits.train, len(splits.classes))
    if config["mean"] is None:
        _say(console, f"measuring mean and standard deviation of {len(clips)} clips")
        loader = DataLoader(clips, recipe.batch_size, num_workers=recipe.workers, collate_fn=collate)
        batches = track(loader, "measuring", console=console, transient=True, disable=not console.is_terminal)
        config["mean"], config["std"] = measure_normalisation(front_end, batches, len(clips))
    model, origin["backbone"] = build_model(recipe, config)
    _check_origin(run, origin, checkpoint)
    _say(console, _description(model, recipe, accelerator))
    if recipe.weights is None and trainable_parameters(model) < _parameters(model):
        _say(console, 'note: the frozen backbone is random; weights="timm" or a file makes it a trained one')

    validation = None
    if splits.validation:
        validation = evaluation_loader(model, splits.validation, recipe.batch_size, recipe.workers)
    trainer = Trainer(
        model,
        recipe,
        clips,
        validation=validation,
        accelerator=accelerator,
        origin=origin,
        checkpoint_path=run.checkpoint,
        metrics_path=run.metrics,
        console=console,
    )
    if checkpoint is not None:
        trainer.resume(checkpoint)
        _say(console, f"going on after epoch {trainer.position.epoch}, step {trainer.position.step}")
    chosen = trainer.fit()
    recipe.build_method().save(model, run.weights(recipe))
    result = _test(model, recipe, splits, trainer, chosen)
    write_json(run.result, asdict(result))
    run.checkpoint.unlink()
    return result


def load_run(run_dir: str | Path, weights: str | Path | None = None) -> AST:
    """The trained model of a finished run, in evaluation mode on the CPU, with its labels and front end.

    Args:
        weights: where the backbone's weights are now, if not where the recipe says.

    Raises:
        RunError: no finished run, or the backbone's weights are not where the recipe says.
        FileError, AdapterError, WeightsError: a file that is damaged or does not fit.
    """
    run = RunDirectory(run_dir)
    if not run.recipe.exists():
        raise RunError(f"{run.path}: no recipe.yaml in it; expected a folder that fastloaa train made")
    recipe = Recipe.load(run.recipe)
    if not run.weights(recipe).exists():
        raise RunError(f"{run.weights(recipe)}: no such file, the run has not finished; train with the same command")
    source = weights or recipe.weights
    if source not in (None, "timm") and not Path(source).exists() and recipe.method != "full":
        raise RunError(f"{run.path}: the backbone's weights {source} are gone; say where they are with --weights PATH")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(recipe.seed)  # a random backbone is the one that the run had
        return recipe.build_method().load(run.weights(recipe), source).eval()


def _accelerator(recipe: Recipe) -> Accelerator:
    """Device and precision.

    Raises:
        TrainingError: started on several processes.
    """
    precision = resolve_precision(recipe.precision, PartialState().device)
    AcceleratorState._reset_state()  # it keeps one precision for the life of a process; the last run's may differ
    accelerator = Accelerator(mixed_precision="no" if precision == "fp32" else precision)
    if accelerator.num_processes > 1:
        raise TrainingError(f"training runs in one process, was started in {accelerator.num_processes}; start one")
    return accelerator


def _fingerprint(splits: AudioSplits) -> str:
    """SHA-256 over the classes and which clips are in which split, by path; not over the sounds themselves."""
    return hashlib.sha256(repr((splits.classes, splits.train, splits.validation, splits.test)).encode()).hexdigest()


def _check_origin(run: RunDirectory, origin: dict[str, str], checkpoint: Checkpoint | None) -> None:
    """Refuse to go on from a checkpoint with other data or another backbone."""
    for name, fingerprint in origin.items():
        if checkpoint is not None and checkpoint.origin[name] != fingerprint:
            raise RunError(
                f"{run.path}: holds an unfinished run, and its {name} has changed since it began; "
                f"bring back what it was, or start again with --overwrite"
            )


def _test(model: AST, recipe: Recipe, splits: AudioSplits, trainer: Trainer, chosen: Chosen) -> Result:
    """Evaluate the test split and gather the result."""
    test = evaluate(
        model,
        splits.test,
        batch_size=recipe.batch_size,
        workers=recipe.workers,
        loss=recipe.loss,
        precision=recipe.precision,
    )
    position, device = trainer.position, trainer.accelerator.device
    return Result(
        method=recipe.method,
        method_options=dict(recipe.method_options),
        data=recipe.data,
        classes=list(splits.classes),
        trainable_parameters=trainable_parameters(model),
        total_parameters=_parameters(model),
        test=SplitScore(test.accuracy, test.loss, test.clips),
        chosen_epoch=chosen.epoch,
        chosen_by=chosen.by,
        validation_accuracy=chosen.validation.accuracy if chosen.validation else None,
        train_clips=len(splits.train),
        seconds=position.seconds,
        broken_files=[*position.broken, *position.broken_validation, *test.broken],
        weights_file=RunDirectory("").weights(recipe).name,
        device=_device_name(device),
        precision=resolve_precision(recipe.precision, device),
        seed=recipe.seed,
        fastloaa=fastloaa.__version__,
        torch=torch.__version__,
    )


def _description(model: AST, recipe: Recipe, accelerator: Accelerator) -> str:
    trains, total, grid = trainable_parameters(model), _parameters(model), model.grid
    return (
        f"{recipe.backbone}, {model.front_end.frames} frames, {grid.freq_bins}x{grid.time_steps} patches; "
        f"{recipe.method}: {trains:,} of {total:,} parameters train; {_device_name(accelerator.device)}, "
        f"{resolve_precision(recipe.precision, accelerator.device)}"
    )


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _parameters(model: AST) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, markup=False, highlight=False)
