"""A whole run: train, choose, test once; and its result loaded again."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from rich.console import Console
from rich.progress import track
from torch.utils.data import DataLoader

from fastloaa.adapters.adapting import trainable_parameters
from fastloaa.data import AudioSplits, Clip, Sample, collate, load_splits, start_worker
from fastloaa.files import understanding, write_json
from fastloaa.methods import OptionError
from fastloaa.models import AST
from fastloaa.training.build import build_front_end, build_model, open_config
from fastloaa.training.checkpoint import Checkpoint
from fastloaa.training.distributed import process_state
from fastloaa.training.errors import RunError
from fastloaa.training.evaluation import clip_dataset, evaluate, evaluation_loader
from fastloaa.training.loop import Trainer
from fastloaa.training.loss import PROBABILITIES
from fastloaa.training.measure import measure_normalisation, measured
from fastloaa.training.metrics import read_metrics
from fastloaa.training.plots import plot_confusion, plot_curves
from fastloaa.training.precision import freeze_in_bf16, resolve_precision
from fastloaa.training.recipe import Metric, Recipe
from fastloaa.training.result import Result, build_result, device_name
from fastloaa.training.rundir import RunDirectory
from fastloaa.training.trackers import check_trackers


def train(recipe: Recipe, out: str | Path, *, overwrite: bool = False, console: Console | None = None) -> Result:
    """Train, choose the epoch, evaluate the test split once with the chosen weights, and leave it all in `out`.

    A run that was interrupted goes on when the same recipe is given the same folder; on the CPU its final weights are
    then bit for bit those of a run that was not. Started in several processes (`accelerate launch`, `torchrun`), they
    train on the same batches together as one process would alone, and the first one writes; a run may go on with
    another number of them. Only dropout depends on how a batch is divided.

    Args:
        out: the run directory, see `RunDirectory`; all processes must see it.
        overwrite: replace what is in it, once the data are read and the model is built.
        console: for progress; `rich.console.Console(quiet=True)` for none, standard output by default.

    Raises:
        OptionError, DataError, RunError, TrainingError, FileError, WeightsError, WriteError: one line each.
        LockedError: another process is training in `out`.
    """
    accelerator = _accelerator(recipe)
    console = (console or Console()) if accelerator.is_main_process else Console(quiet=True)
    run = RunDirectory(out)
    with run.locked() if accelerator.is_main_process else nullcontext():  # of several processes, the first one writes
        return _train(recipe, run, overwrite, accelerator, console)


def _train(recipe: Recipe, run: RunDirectory, overwrite: bool, accelerator: Accelerator, console: Console) -> Result:
    """`train` in a directory that this process, or the first of several, has locked."""
    check_trackers(recipe.trackers)
    splits = load_splits(recipe.data, test_fold=recipe.test_fold, validation=recipe.validation, seed=recipe.seed)
    metric = _metric(recipe, splits)
    if splits.fold is None and recipe.test_fold != Recipe.test_fold:
        raise OptionError(f"{splits.name} has no folds, the recipe says test_fold {recipe.test_fold}; leave it out")
    checkpoint = None if overwrite else run.begun(recipe)
    _say(console, splits.summary())

    origin = {"data": splits.fingerprint()}
    _check_origin(run, origin, checkpoint)
    config = open_config(recipe, splits) if checkpoint is None else checkpoint.model_config
    with understanding(run.checkpoint, "a checkpoint") if checkpoint else nullcontext():
        front_end = build_front_end(config)
    training = clip_dataset(front_end, splits.train, len(splits.classes), splits.multi_label)
    if config["mean"] is None:
        looked_at = measured(len(training))
        of_all = "" if len(looked_at) == len(training) else f" of {len(training):,}, spread evenly"
        _say(console, f"measuring mean and standard deviation of {len(looked_at)} clips{of_all}")
        batches = DataLoader(
            training,
            recipe.batch_size,
            sampler=looked_at,
            num_workers=recipe.workers,
            collate_fn=collate,
            worker_init_fn=start_worker,
        )
        shown = track(batches, "measuring", console=console, transient=True, disable=not console.is_terminal)
        config["mean"], config["std"] = measure_normalisation(front_end, shown, len(looked_at))
    model, origin["backbone"] = build_model(recipe, config)
    _check_origin(run, origin, checkpoint)
    if recipe.frozen_bf16:
        freeze_in_bf16(model)
    _say(console, _description(model, recipe, accelerator))
    if recipe.weights is None and trainable_parameters(model) < sum(p.numel() for p in model.parameters()):
        _say(console, 'note: the frozen backbone is random; weights="timm" or a file makes it a trained one')
    if accelerator.is_main_process:
        run.claim(recipe, overwrite)

    def loader(clips: Sequence[Clip], wanted: bool) -> DataLoader[Sample] | None:
        options = (recipe.batch_size, recipe.workers, splits.multi_label, recipe.views)
        return evaluation_loader(model, clips, *options) if wanted else None

    trainer = Trainer(
        model,
        recipe,
        training,
        validation=loader(splits.validation, wanted=bool(splits.validation)),
        test=loader(splits.test, wanted=recipe.test_every_epoch),
        multi_label=splits.multi_label,
        metric=metric,
        accelerator=accelerator,
        run=run,
        origin=origin,
        console=console,
    )
    if checkpoint is not None:
        trainer.resume(checkpoint)
        _say(console, f"going on after epoch {trainer.position.epoch}, step {trainer.position.step}")
    chosen = trainer.fit()
    test = evaluate(
        model,
        splits.test,
        batch_size=recipe.batch_size,
        workers=recipe.workers,
        loss=recipe.loss,
        precision=recipe.precision,
        multi_label=splits.multi_label,
        views=recipe.views,
    )
    result = build_result(model, recipe, splits, trainer, chosen, test)
    if accelerator.is_main_process:
        recipe.build_method().save(model, run.weights(recipe))
        plot_curves(read_metrics(run.metrics), metric, run.curves)
        if test.confusion is not None:
            plot_confusion(test.confusion, splits.classes, run.confusion)
        write_json(run.result, asdict(result))
        run.checkpoint.unlink()
    accelerator.wait_for_everyone()
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
        model = recipe.build_method().load(run.weights(recipe), source).eval()
    model.probabilities = PROBABILITIES[recipe.loss]  # weights that older versions wrote do not say
    return model


def _accelerator(recipe: Recipe) -> Accelerator:
    """Device, precision, compilation and processes.

    Raises:
        OptionError: a precision that the device or another option does not take.
    """
    precision = resolve_precision(recipe.precision, process_state().device)
    if recipe.frozen_bf16 and precision != "bf16":
        raise OptionError(f'frozen_bf16 goes with precision "bf16", this runs in {precision}; set precision=bf16')
    AcceleratorState._reset_state()  # it keeps one precision for the life of a process; the last run's may differ
    return Accelerator(
        mixed_precision="no" if precision == "fp32" else precision,
        dynamo_backend="inductor" if recipe.compile else "no",
        # Its buffers are the front end's, which are everywhere the same.
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )


def _metric(recipe: Recipe, splits: AudioSplits) -> Metric:
    """What chooses the epoch.

    Raises:
        OptionError: a metric or a loss for one label per clip, where clips have several.
    """
    if splits.multi_label and recipe.loss != "bce":
        raise OptionError(f"{splits.name} has several labels to a clip, loss {recipe.loss!r} takes one; set loss=bce")
    if splits.multi_label and recipe.metric == "accuracy":
        raise OptionError(f"{splits.name} has several labels to a clip, accuracy takes one; set metric=mAP")
    return recipe.metric or ("mAP" if splits.multi_label else "accuracy")


def _check_origin(run: RunDirectory, origin: dict[str, str], checkpoint: Checkpoint | None) -> None:
    """Refuse to go on from a checkpoint with other data or another backbone."""
    for name, fingerprint in origin.items():
        if checkpoint is not None and checkpoint.origin.get(name) != fingerprint:
            raise RunError(
                f"{run.path}: holds an unfinished run, and its {name} has changed since it began; "
                f"bring back what it was, or start again with --overwrite"
            )


def _description(model: AST, recipe: Recipe, accelerator: Accelerator) -> str:
    trains, total = trainable_parameters(model), sum(parameter.numel() for parameter in model.parameters())
    grid = model.grid
    return (
        f"{recipe.backbone}, {model.front_end.frames} frames, {grid.freq_bins}x{grid.time_steps} patches; "
        f"{recipe.method}: {trains:,} of {total:,} parameters train; {device_name(accelerator.device)}, "
        f"{resolve_precision(recipe.precision, accelerator.device)}"
    )


def _say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, markup=False, highlight=False)
