"""The model that a recipe describes."""

from typing import Any

import torch

from fastloaa.adapters.files import backbone_fingerprint
from fastloaa.audio import FRONT_ENDS, LOG_MEL_RATE, FrontEnd, SpectrogramFrontEnd, StoredLogMel
from fastloaa.data import AudioSplits, are_log_mels, measure_mel_bins
from fastloaa.grid import pair
from fastloaa.methods import OptionError
from fastloaa.models import AST
from fastloaa.models.architecture import check_architecture
from fastloaa.training.errors import TrainingError
from fastloaa.training.loss import PROBABILITIES
from fastloaa.training.measure import measure_frames, measured
from fastloaa.training.recipe import Recipe


def open_config(recipe: Recipe, splits: AudioSplits) -> dict[str, Any]:
    """Arguments for `AST`, as `AST.config()` gives them; mean and std are None where they are still to be measured.

    Where the data are stored spectrograms, front end, mel bins and rate are theirs.

    Raises:
        DataError: the frames are to be measured and no training clip can be read, recordings and spectrograms together,
            or spectrograms of different numbers of mel bins.
        OptionError: a front end, mel bins or a sample rate that do not go with the data.
    """
    recipe = _for_its_data(recipe, splits)
    rate = FRONT_ENDS[recipe.front_end].frames_per_second
    return {
        "num_classes": len(splits.classes),
        "labels": list(splits.classes),
        "probabilities": PROBABILITIES[recipe.loss],
        "multi_label": splits.multi_label,
        "backbone": recipe.backbone,
        "backbone_options": dict(recipe.backbone_options),
        "patch": pair(recipe.patch),
        "stride": pair(recipe.stride),
        "front_end": recipe.front_end,
        "frames": recipe.frames or measure_frames(splits.train, pair(recipe.patch)[1], rate),
        "mel_bins": recipe.mel_bins,
        "sample_rate": recipe.sample_rate,
        "mean": recipe.mean,
        "std": recipe.std,
    }


def _for_its_data(recipe: Recipe, splits: AudioSplits) -> Recipe:
    """The recipe, with the front end for stored spectrograms and their mel bins where the data are such."""
    if not are_log_mels(splits.all_clips):
        if recipe.front_end == StoredLogMel.kind:
            raise OptionError(
                f"{splits.name} is of recordings, front_end {StoredLogMel.kind!r} is for spectrograms from files; "
                f"set front_end={Recipe.front_end}"
            )
        return recipe
    if recipe.front_end not in (Recipe.front_end, StoredLogMel.kind):
        raise OptionError(
            f"{splits.name} is of spectrograms from files, front_end {recipe.front_end!r} is for recordings; "
            "leave it out"
        )
    clips = splits.all_clips  # those to validate and to test on too: found there after hours, it would cost the run
    mel_bins = measure_mel_bins([clips[index] for index in measured(len(clips))])
    if recipe.mel_bins not in (Recipe.mel_bins, mel_bins):
        raise OptionError(
            f"{splits.name} has spectrograms of {mel_bins} mel bins, the recipe says {recipe.mel_bins}; leave it out"
        )
    if recipe.sample_rate not in (Recipe.sample_rate, LOG_MEL_RATE):
        raise OptionError(
            f"{splits.name} is of spectrograms from files, whose times count {LOG_MEL_RATE} frames a second, the "
            f"recipe says sample_rate {recipe.sample_rate}; leave it out"
        )
    return recipe.replace(front_end=StoredLogMel.kind, mel_bins=mel_bins, sample_rate=LOG_MEL_RATE)


def build_front_end(config: dict[str, Any]) -> SpectrogramFrontEnd:
    """The model's front end but for mean and std.

    Raises:
        OptionError: mel bins or a sample rate that it refuses.
    """
    try:
        kind = FRONT_ENDS[config.get("front_end", FrontEnd.kind)]
        return kind(config["frames"], config["mel_bins"], config["sample_rate"])
    except ValueError as error:
        raise OptionError(str(error)) from error


def build_model(recipe: Recipe, config: dict[str, Any]) -> tuple[AST, str]:
    """The model with its method applied, and the fingerprint of its backbone.

    What is random in it follows from the recipe's seed: first the backbone, then what the method adds.

    Args:
        config: arguments for `AST`, complete, from `open_config` or a checkpoint.

    Raises:
        TrainingError: a backbone that timm does not know or that does not take the method, sizes that do not fit each
            other, weights that do not fit, are missing or cannot be downloaded.
    """
    torch.manual_seed(recipe.seed)
    try:
        check_architecture("recipe", config)  # or its weights could not be loaded again
        model = AST.from_config(config, recipe.weights)
        fingerprint = backbone_fingerprint(model)
        return recipe.build_method().apply(model), fingerprint
    except (ValueError, TypeError, RuntimeError, OSError) as error:  # ours, timm's, the hub's
        reason = " ".join(str(error).split())[:500]
        raise TrainingError(f"{recipe.backbone} (weights: {recipe.weights}) cannot be built: {reason}") from error
