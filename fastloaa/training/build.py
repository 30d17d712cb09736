"""The model that a recipe describes."""

from typing import Any

import torch

from fastloaa.adapter_file import backbone_fingerprint
from fastloaa.audio import FrontEnd
from fastloaa.data import AudioSplits
from fastloaa.grid import pair
from fastloaa.methods import OptionError
from fastloaa.models import AST
from fastloaa.training.errors import TrainingError
from fastloaa.training.measure import measure_frames, measure_normalisation
from fastloaa.training.recipe import Recipe


def measured_config(recipe: Recipe, splits: AudioSplits) -> dict[str, Any]:
    """Arguments for `AST`, as `AST.config()` gives them, with what the recipe leaves open measured on the training
    clips.

    Raises:
        DataError: no clip can be read, or all are silent.
        OptionError: mel bins or a sample rate that the front end refuses.
    """
    frames = recipe.frames or measure_frames(splits.train, pair(recipe.patch)[1])
    try:
        front_end = FrontEnd(frames, recipe.mel_bins, recipe.sample_rate)
    except ValueError as error:
        raise OptionError(str(error)) from error
    mean, std = recipe.mean, recipe.std
    if mean is None or std is None:
        mean, std = measure_normalisation(front_end, splits.train, recipe.batch_size, recipe.workers)
    return {
        "num_classes": len(splits.classes),
        "labels": list(splits.classes),
        "backbone": recipe.backbone,
        "backbone_options": dict(recipe.backbone_options),
        "patch": pair(recipe.patch),
        "stride": pair(recipe.stride),
        **(front_end.config() | {"mean": mean, "std": std}),
    }


def build_model(recipe: Recipe, config: dict[str, Any]) -> tuple[AST, str]:
    """The model with its method applied, and the fingerprint of its backbone.

    What is random in it follows from the recipe's seed: first the backbone, then what the method adds.

    Args:
        config: arguments for `AST`, from `measured_config` or a checkpoint.

    Raises:
        TrainingError: a backbone that timm does not know or that does not take the method, sizes that do not fit each
            other, weights that do not fit, are missing or cannot be downloaded.
    """
    torch.manual_seed(recipe.seed)
    try:
        model = AST.from_config(config, recipe.weights)
        fingerprint = backbone_fingerprint(model)
        return recipe.build_method().apply(model), fingerprint
    except (ValueError, TypeError, RuntimeError, OSError) as error:  # ours, timm's, the hub's
        reason = " ".join(str(error).split())[:500]
        raise TrainingError(f"{recipe.backbone} (weights: {recipe.weights}) cannot be built: {reason}") from error
