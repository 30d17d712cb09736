"""Several adapters by their names, where `adapt` puts one."""

from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from fastloaa.adapters.loaa import LoAA
from fastloaa.grid import TokenGrid
from fastloaa.ops.autocast import autocast_dtype
from fastloaa.ops.normed import NormedFrom

PREFIX = "loaa_adapters"
"""The part of a parameter's name by which peft knows adapters; no part of the sites' names, loaa_attn and loaa_ffn."""


class NamedAdapters(nn.Module, BaseTunerLayer):
    """What stands beside attention or FFN (a `fastloaa.backbones.blocks.Branch`): the sum of the active adapters.

    It wraps nothing, as the layers of most of peft's methods do: the block is opened instead, so that its own
    parameters keep their names.

    Args:
        like: a parameter of the block, whose device and dtype new adapters have.
    """

    adapter_layer_names = (PREFIX,)
    other_param_names = ()
    active_adapters: list[str]  # of BaseTunerLayer, as the next
    _cast_input_dtype: Any

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.loaa_adapters = nn.ModuleDict()
        self.merged_adapters: list[str] = []
        self._disable_adapters = False
        self._active_adapter: str | list[str] = []
        # peft asks a layer for its weight to learn device and dtype: this one goes wherever the block goes.
        self.register_buffer("block_like", torch.empty(0, device=like.device, dtype=like.dtype), persistent=False)

    @property
    def weight(self) -> Tensor:
        """Empty, on the block's device and in its dtype."""
        return self.block_like  # type: ignore[return-value]

    @property
    def bias(self) -> None:
        return None

    def adapters(self, names: list[str]) -> list[LoAA]:
        """Those of the named adapters that stand here."""
        return [self.loaa_adapters[name] for name in names if name in self.loaa_adapters]  # type: ignore[misc]

    def set_grid(self, grid: TokenGrid) -> None:
        """Nothing to do: the adapters, submodules, are told themselves."""

    def forward(self, x: Tensor, block_out: Tensor, skip: Tensor, normed_from: NormedFrom | None = None) -> Tensor:
        """block_out + skip + the branches of the active adapters; all [batch, tokens, dim]."""
        active = [] if self.disable_adapters else self.adapters(self.active_adapters)
        if not active:
            return skip + block_out
        first, *others = active
        out = self._branch(first, x, block_out, skip, normed_from)
        for adapter in others:
            out = self._branch(adapter, x, out, None, normed_from)
        return out

    def _branch(
        self, adapter: LoAA, x: Tensor, block_out: Tensor, skip: Tensor | None, normed_from: NormedFrom | None
    ) -> Tensor:
        dtype = adapter.down.weight.dtype
        if x.dtype == dtype or autocast_dtype(x.device.type):
            return adapter(x, block_out, skip, normed_from)
        # peft keeps adapters in float32 beside a block in half precision: computed in theirs, and one rounding.
        return adapter(self._cast_input_dtype(x, dtype), block_out, skip).to(x.dtype)

    def merge(self, *_: Any, **__: Any) -> None:
        """Raise NotImplementedError: merged blocks are wider, and of another class."""
        raise NotImplementedError(
            "LoAA does not merge into weights that are there; model.merge_and_unload() makes a model with wider ones"
        )

    def unmerge(self) -> None:
        """Nothing to do: see `merge`."""
