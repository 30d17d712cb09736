"""The method itself: what peft calls to put adapters into a model, and to take them out."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner
from peft.utils.constants import DUMMY_MODEL_CONFIG
from peft.utils.integrations import skip_init_on_device
from torch import nn

from fastloaa.adapters.adapting import new_adapter, open_blocks
from fastloaa.adapters.record import is_adapted, note, record_of
from fastloaa.backbones import AdaptedBlock, backbone_of
from fastloaa.errors import ArgumentError
from fastloaa.export import MergeError, merge
from fastloaa.peft.config import LoAAConfig
from fastloaa.peft.convert import adapted_copy
from fastloaa.peft.layer import PREFIX, NamedAdapters

# In a model whose adapters are first made without storage (low_cpu_mem_usage), opening a block would take that of
# parameters which the block has itself.
_open_blocks = skip_init_on_device(open_blocks)


class LoAAModel(BaseTuner):
    """A model with Look-Aside Adapters by name; `get_peft_model` makes it.

    Raises:
        ArgumentTypeError: a model or a block that adapters cannot be put into.
        ArgumentError: a model that `adapt` has adapted, or adapters of which some read the normed input, some not.
    """

    prefix = PREFIX
    tuner_layer_cls = NamedAdapters
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012 (peft's)

    @property
    def config(self) -> Any:
        """The configuration of a model of transformers; others have none that peft could read."""
        found = getattr(self.model, "config", None)
        return DUMMY_MODEL_CONFIG if found is None or callable(found) else found

    @staticmethod
    def get_model_config(model: nn.Module) -> dict[str, Any]:
        config = getattr(model, "config", None)
        return dict(DUMMY_MODEL_CONFIG) if callable(config) else BaseTuner.get_model_config(model)

    def _check_new_adapter_config(self, config: LoAAConfig) -> None:
        super()._check_new_adapter_config(config)
        for name, other in self.peft_config.items():
            if other.normed_input != config.normed_input:
                raise ArgumentError(
                    f"adapters of one model read the normed input of their blocks, or none does: this one has "
                    f"normed_input={config.normed_input}, {name!r} has {other.normed_input}"
                )

    def _prepare_adapter_config(self, peft_config: LoAAConfig, model_config: dict[str, Any]) -> PeftConfig:
        backbone = backbone_of(self.model)
        blocks = next(name for name, module in self.model.named_modules() if module is backbone.blocks)
        peft_config.target_modules = rf"{re.escape(blocks)}\.\d+"
        if peft_config.modules_to_save is None:
            heads = backbone.head.items()
            peft_config.modules_to_save = [name for name, head in heads if next(head.parameters(), None) is not None]
        return peft_config

    def _prepare_model(self, peft_config: LoAAConfig, model: nn.Module) -> None:
        if record_of(model).by_peft:
            return
        if is_adapted(model):
            raise ArgumentError(
                "the model has been adapted already; fastloaa.peft.to_peft(model) makes a PeftModel of one that adapt "
                "adapted, adapters and all"
            )
        _open_blocks(backbone_of(model), peft_config.normed_input)
        note(model, by_peft=True)

    def _create_and_replace(
        self, peft_config: LoAAConfig, adapter_name: str, target: AdaptedBlock, *_: Any, **__: Any
    ) -> None:
        backbone, config = backbone_of(self.model), peft_config.adapt
        target.normed_input = config.normed_input
        for site, kernel in (("loaa_attn", config.attn), ("loaa_ffn", config.ffn)):
            if kernel is None:
                continue
            like = next(target.parameters())  # the block's own, which stand before those of adapters
            if getattr(target, site) is None:
                setattr(target, site, NamedAdapters(like).train(target.training))
            adapters = getattr(target, site)
            adapter = new_adapter(backbone, like, kernel, config)
            adapters.loaa_adapters[adapter_name] = adapter.train(target.training)
            adapters.set_adapter(self.active_adapters)

    @contextmanager
    def _enable_peft_forward_hooks(self, *_: Any, adapter_names: list[str] | None = None, **__: Any) -> Iterator[None]:
        if adapter_names is not None:  # peft would take them and answer with the active one
            raise NotImplementedError(
                "adapters for each clip are fastloaa.name_adapters' and model_adapters' (from_peft makes models for it)"
            )
        yield

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        setattr(parent, child_name, new_module)  # peft's own expects a weight, which a head of several parts has not

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete an adapter; if no other is active then, the first of those left by name is."""
        active = list(self.active_adapters)
        super().delete_adapter(adapter_name)
        if adapter_name in active:  # peft asks one layer which is active now, and not every one stands at every site
            left = [name for name in active if name != adapter_name] or sorted(self.peft_config)[:1]
            if left:
                self.set_adapter(left)
            else:
                self.active_adapter = left
        else:
            self.active_adapter = active

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        return key.replace(f".{PREFIX}.{adapter_name}.", f".{PREFIX}.")

    def _unload_and_optionally_merge(
        self,
        merge: bool = True,
        progressbar: bool = False,
        safe_merge: bool = False,
        adapter_names: list[str] | None = None,
    ) -> nn.Module:
        """Without merging the model as it was, in place; merged a new one, which `fastloaa.export.merge` makes."""
        if merge:
            return self._merged(adapter_names or self.active_adapters, safe_merge)
        model = super()._unload_and_optionally_merge(merge=False, progressbar=progressbar)
        backbone = backbone_of(model)
        for index, block in enumerate(backbone.blocks):
            backbone.blocks[index] = cast(AdaptedBlock, block).closed()
        backbone.restored()
        note(model, by_peft=False)
        return model

    def _merged(self, names: list[str], safe_merge: bool) -> nn.Module:
        adapted = adapted_copy(self.model, names)
        trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
        if safe_merge and not all(torch.isfinite(parameter).all() for parameter in trained):
            raise MergeError(f"the adapters {', '.join(names)} hold numbers that are not finite; they are not merged")
        return merge(adapted)
