"""Adapters that `adapt` made for peft, and the other way round; weights, head and what they started from stay."""

import copy
from dataclasses import replace
from typing import Any

from peft import PeftModel, get_peft_model
from peft.utils import ModulesToSaveWrapper
from torch import nn

from fastloaa.adapters.adapting import freeze_backbone, present_config
from fastloaa.adapters.combine import concat
from fastloaa.adapters.config import AdaptConfig
from fastloaa.adapters.record import note
from fastloaa.backbones import backbone_of
from fastloaa.errors import ArgumentError, ArgumentTypeError
from fastloaa.inputs import check_module
from fastloaa.peft.config import LoAAConfig
from fastloaa.peft.layer import NamedAdapters

_SITES = ("loaa_attn", "loaa_ffn")


def to_peft(model: nn.Module, adapter_name: str = "default") -> PeftModel:
    """A new PeftModel with the adapters and the head of a model that `adapt` or `load_adapter` adapted.

    Args:
        model: left as it is.
        adapter_name: what the adapters are called there; they are active.

    Raises:
        ArgumentError: a model without adapters, or whose adapters are not alike.
    """
    check_module(model)
    config = present_config(model)
    if config is None:
        raise ArgumentError(
            "the model has no adapters to give to peft; get_peft_model(model, LoAAConfig(...)) puts new ones into it"
        )
    copied = copy.deepcopy(model)
    blocks = list(backbone_of(copied).blocks)
    taken = [{site: getattr(block, site) for site in _SITES} for block in blocks]
    for block in blocks:
        for site in _SITES:
            setattr(block, site, None)
    note(copied, adapted=None, by_peft=True)
    result = get_peft_model(copied, LoAAConfig.of(config), adapter_name, autocast_adapter_dtype=False)
    for block, adapters in zip(blocks, taken, strict=True):
        for site in _SITES:
            here = getattr(block, site)
            if here is not None:
                here.loaa_adapters[adapter_name] = adapters[site]
    result.set_adapter(adapter_name)
    return result


def from_peft(model: PeftModel, adapter_name: str | None = None) -> nn.Module:
    """A new model as `adapt` makes it, with one of the adapters of a PeftModel and its head, for what fastloaa does.

    `save_adapter`, `merge`, `to_onnx` and `AST.from_transformers` take it.

    Args:
        model: left as it is.
        adapter_name: which; None: the active one.

    Raises:
        ArgumentTypeError: not a PeftModel, or one of another method.
        ArgumentError: no adapter of that name, or not exactly one active.
    """
    if not isinstance(model, PeftModel) or not isinstance(model.active_peft_config, LoAAConfig):
        raise ArgumentTypeError(
            f"expected a PeftModel that get_peft_model(model, LoAAConfig(...)) made, got {type(model).__name__}"
        )
    names = model.active_adapters if adapter_name is None else [adapter_name]
    if len(names) != 1:
        raise ArgumentError(f"{len(names)} adapters are active ({', '.join(names)}); say which: from_peft(model, name)")
    return adapted_copy(model.get_base_model(), names)


def adapted_copy(model: Any, names: list[str]) -> nn.Module:
    """A copy of a model inside a PeftModel, as if `adapt` had made it, with the sum of the named adapters."""
    unknown = [name for name in names if name not in model.peft_config]
    if unknown or not names:
        raise ArgumentError(f"no adapter {', '.join(unknown)}; the model has {', '.join(model.peft_config)}")
    config = _config_of([model.peft_config[name].adapt for name in names])
    copied = copy.deepcopy(model)
    del copied.peft_config
    backbone = backbone_of(copied)
    for block in backbone.blocks:
        for site in _SITES:
            here = getattr(block, site)
            adapters = here.adapters(names) if isinstance(here, NamedAdapters) else []
            setattr(block, site, concat(adapters) if len(adapters) > 1 else next(iter(adapters), None))
    for path, module in list(copied.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):
            saved = [module.modules_to_save[name] for name in names if name in module.modules_to_save]
            copied.set_submodule(path, saved[0] if saved else module.original_module)
    note(copied, by_peft=False, adapted=config)
    freeze_backbone(backbone_of(copied))
    return copied


def _config_of(configs: list[AdaptConfig]) -> AdaptConfig:
    """That of the sum, as `concat` makes it."""
    first, *others = configs
    for other in others:
        first = replace(
            first,
            attn=_size_of_both(first.attn, other.attn),
            ffn=_size_of_both(first.ffn, other.ffn),
            bottleneck=first.bottleneck + other.bottleneck,
            bias=first.bias or other.bias,
            scale=1.0,
            dropout=0.0,
        )
    return first


def _size_of_both(one: tuple[int, int] | None, other: tuple[int, int] | None) -> tuple[int, int] | None:
    """The kernel that holds both."""
    if one is None or other is None:
        return one or other
    return max(one[0], other[0]), max(one[1], other[1])
