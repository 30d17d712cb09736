"""Adapters alone on disk: adapters + head with their configuration, a few MB beside the backbone they were made for."""

import hashlib
import warnings
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastloaa.adapters.adapting import ModelT, adapt, frozen_weights, present_config
from fastloaa.adapters.config import AdaptConfig
from fastloaa.adapters.loaa import LoAA
from fastloaa.backbones import backbone_of, is_audio_transformer
from fastloaa.errors import ArgumentError, FastloaaError
from fastloaa.files import FileError, check_tensors, find_file, read_safetensors, understanding, write_safetensors
from fastloaa.inputs import check_module, check_path
from fastloaa.probabilities import check_probabilities

ADAPTER_FILE = "adapter.safetensors"
"""What the file is called in the folder of a run, of a trainer's checkpoint, or of a repository."""
_ANSWERS = {"probabilities", "multi_label"}  # what a model's configuration says of its head, beside the labels
_FRONT_END = ("front_end", "sample_rate", "mean", "std")  # and of what it hears


class AdapterError(FastloaaError, ValueError):
    """An adapter file that does not fit the model."""


def save_adapter(model: nn.Module, path: str | Path) -> None:
    """Write the adapters and the head of an adapted model, with their configuration, as safetensors.

    The file also says which backbone they belong to (its shape and a fingerprint of its frozen weights) and, for AST,
    how to build the model again.

    Raises:
        ArgumentError: a model that has not been adapted, or whose adapters are not alike.

    Warns:
        UserWarning: more trains than adapters and head, and is not in the file.

    Examples:
        >>> from fastloaa import AST, adapt, load_adapter, save_adapter
        >>> small = {"depth": 1, "embed_dim": 48, "num_heads": 3}
        >>> model = AST(5, frames=64, backbone_options=small)
        >>> backbone = model.backbone.state_dict()
        >>> save_adapter(adapt(model, bottleneck=4), "esc50.safetensors")
        >>> fresh = AST(5, frames=64, backbone_options=small)
        >>> _ = fresh.backbone.load_state_dict(backbone)  # the frozen weights that the adapters were trained beside
        >>> fresh = load_adapter(fresh, "esc50.safetensors")
    """
    check_module(model)
    check_path(path)
    config = present_config(model)
    if config is None:
        raise ArgumentError("the model has no adapters to save; call adapt(model, ...) first")
    state = adapter_state(model)
    warn_of_rest(model, state)
    metadata = {
        "kind": "adapter",
        "adapt": config.to_json(),
        "backbone": describe_backbone(model),
        "initialisation": {name: adapter.initialisation for name, adapter in _adapters(model).items()},
        "model": backbone_of(model).config(),
    }
    write_safetensors(path, state, metadata)


def load_adapter(
    model: ModelT, path: str | Path, *, check_backbone: bool = True, revision: str | None = None
) -> ModelT:
    """Load what `save_adapter` wrote into `model`, in place; adapts the model first if it is not yet.

    An `AST` answers from then on as the file says: softmax or sigmoid, and by its labels if it has none itself.

    Args:
        model: the same architecture on the same frozen weights. Frames may differ: the kernels do not mind.
        path: the file, a folder with `adapter.safetensors` in it, or a repository of Hugging Face's hub with that,
            `owner/name`, which is downloaded unless there is a folder of that name.
        check_backbone: refuse a backbone whose frozen weights are not those the adapters were trained with.
        revision: of a repository: a branch, a tag or a commit.

    Returns:
        `model` itself.

    Raises:
        FileError: missing, damaged, or not an adapter file; a repository that cannot be had.
        AdapterError: made for another backbone, another grid, another number of classes, or the model's labels in
            another order. `model` is left as it was.

    Warns:
        UserWarning: trained behind a front end with other settings than the model's.

    Examples:
        >>> from fastloaa import AST, adapt, load_adapter, save_adapter
        >>> model = AST(5, frames=64, backbone_options={"depth": 1, "embed_dim": 48, "num_heads": 3})
        >>> save_adapter(adapt(model, bottleneck=4), "esc50.safetensors")
        >>> load_adapter(model, "esc50.safetensors") is model
        True
    """
    check_module(model)
    check_path(path)
    path = find_file(path, ADAPTER_FILE, revision)
    state, metadata = read_safetensors(path)
    if metadata.get("kind") != "adapter":
        raise FileError(f"{path}: not an adapter file; expected one that save_adapter wrote")
    here, present = describe_backbone(model, fingerprint=check_backbone), present_config(model)
    with understanding(path, "an adapter file"):
        config, made_for = AdaptConfig.from_json(metadata["adapt"]), dict(metadata["backbone"])
        known = dict(metadata.get("initialisation") or {})
        said = dict(metadata.get("model") or {})
        answers = {name: value for name, value in said.items() if name in _ANSWERS}
        check_probabilities(answers.get("probabilities", "softmax"), answers.get("multi_label", False))
        labels = None if said.get("labels") is None else tuple(map(str, said["labels"]))
    check_made_for(path, made_for, here)
    own = getattr(model, "labels", None)
    if labels and own and own != labels and sorted(own) == sorted(labels):
        raise AdapterError(
            f"{path}: was trained for the model's labels in another order; give the model none of its own, and it "
            f"takes the file's"
        )
    if present is not None and present != config:
        raise AdapterError(
            f"{path}: was saved from {config}, the model has {present}; load it into an un-adapted model"
        )
    for name, tensor in _head_state(model).items():
        if name not in state or state[name].shape != tensor.shape:
            given = tuple(state[name].shape) if name in state else "nothing"
            raise AdapterError(
                f"{path}: holds {given} for {name}, the model has {tuple(tensor.shape)}; "
                f"build the model with the number of classes that the adapters were trained for"
            )
    if present is None:
        _check_adapters(path, state, config, backbone_of(model).dim)
        with understanding(path, "an adapter file"):
            adapt(model, **asdict(config))
    check_tensors(path, adapter_state(model), state)
    model.load_state_dict(state, strict=False)
    if is_audio_transformer(model):  # the head answers as it was trained to
        for name, value in answers.items():
            setattr(model, name, value)
        if labels and own is None and len(labels) == getattr(model, "num_classes", None):
            setattr(model, "labels", labels)  # noqa: B010 (not every such model has them)
        _warn_of_front_end(path, said, model.config())
    for name, adapter in _adapters(model).items():
        adapter.initialisation = known.get(name)
    return model


def _warn_of_front_end(path: str | Path, trained: dict[str, Any], config: dict[str, Any]) -> None:
    other = [name for name in _FRONT_END if name in trained and name in config and trained[name] != config[name]]
    if other:
        then, now = (", ".join(f"{name}={values[name]}" for name in other) for values in (trained, config))
        warnings.warn(
            f"{path}: was trained behind a front end with {then}, the model's has {now}, so the adapters hear other "
            f"numbers than in training; build the model with those",
            stacklevel=3,
        )


def _check_adapters(path: str | Path, state: dict[str, Tensor], config: AdaptConfig, dim: int) -> None:
    """Compare the shapes of adapters with their configuration, before anything of the size that it says is made.

    Raises:
        FileError: they differ, or a site has no adapters.
    """
    for site, kernel in (("attn", config.attn), ("ffn", config.ffn)):
        if kernel is None:
            continue
        shapes = {
            "down.weight": (config.bottleneck, dim, *kernel),
            "up.weight": (dim, config.bottleneck, *kernel),
            "down.bias": (config.bottleneck,),
            "up.bias": (dim,),
        }
        stored = {name: tuple(tensor.shape) for name, tensor in state.items() if f"loaa_{site}." in name}
        wrong = [name for name, shape in stored.items() if shape != shapes.get(name.partition(f"loaa_{site}.")[2])]
        if wrong or not stored:
            what = f"{wrong[0]} of shape {stored[wrong[0]]}" if wrong else "nothing"
            raise FileError(f"{path}: damaged, holds {what} for adapters {config}; save it again")


def warn_of_rest(model: nn.Module, state: Collection[str]) -> None:
    """Say so if parameters train that are not among those of `state`, which is all that is kept."""
    lost = [name for name, parameter in model.named_parameters() if parameter.requires_grad and name not in state]
    if lost:
        warnings.warn(
            f"{len(lost)} parameters train that are not in the file, such as {lost[0]}: it holds adapters and head "
            f"alone, which answer otherwise beside other values of those; save the model's state dict as well",
            stacklevel=3,
        )


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """State-dict entries of the adapters and the head."""
    adapters = {
        f"{name}.{key}": tensor
        for name, module in _adapters(model).items()
        for key, tensor in module.state_dict().items()
    }
    return adapters | _head_state(model)


def _adapters(model: nn.Module) -> dict[str, LoAA]:
    return {name: module for name, module in model.named_modules() if isinstance(module, LoAA)}


def _head_state(model: nn.Module) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": tensor
        for name, module in backbone_of(model).head.items()
        for key, tensor in module.state_dict().items()
    }


def describe_backbone(model: nn.Module, fingerprint: bool = True) -> dict[str, Any]:
    """What adapters depend on in a backbone. Time steps are left out: kernels slide over any number of them."""
    backbone = backbone_of(model)
    grid = backbone.grid
    described: dict[str, Any] = {
        "dim": backbone.dim,
        "depth": len(backbone.blocks),
        "freq_bins": grid.freq_bins,
        "prefix_tokens": grid.prefix_tokens,
        "token_order": grid.token_order,
    }
    return described | ({"fingerprint": backbone_fingerprint(model)} if fingerprint else {})


def backbone_fingerprint(model: nn.Module) -> str:
    """SHA-256 over the blocks' frozen weights, rounded to bfloat16 so that a bfloat16 copy has the same one.

    What adapters and other methods brought is left out, so a model has the same one with and without them.
    """
    weights = sorted(frozen_weights(model).items())
    if any(parameter.is_meta for _, parameter in weights):
        raise AdapterError(
            "the model is on the device meta, where its weights have no values to tell whose adapters they carry; "
            "load them first"
        )
    digest = hashlib.sha256()
    for name, parameter in weights:
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().bfloat16().contiguous().view(torch.int16).numpy().data)
    return digest.hexdigest()


def check_made_for(path: str | Path, made_for: dict[str, Any], here: dict[str, Any]) -> None:
    """Compare two of `describe_backbone`, the one in a file and the one at hand, in what both say.

    Raises:
        AdapterError: they differ.
    """
    for name, expected in made_for.items():
        if name in here and here[name] != expected:
            raise AdapterError(_mismatch(path, name, expected, here[name]))


def _mismatch(path: str | Path, name: str, expected: object, given: object) -> str:
    if name == "fingerprint":
        return (
            f"{path}: was trained beside other frozen weights than this model has; load the backbone it was trained "
            f"with, or pass check_backbone=False if you mean it"
        )
    return (
        f"{path}: made for a backbone with {name}={expected}, this model has {name}={given}; build the matching model"
    )
