"""Adapters keep to the grid that their model has now, whatever has been done to it since they were put in."""

from typing import Any

import torch
from torch import Tensor, nn

from fastloaa.backbones import Backbone
from fastloaa.backbones.blocks import OpenHook
from fastloaa.errors import ArgumentError
from fastloaa.grid import TokenGrid


class FollowGrid(OpenHook):
    """Before each block: the adapters take the model's grid if it has changed, and the tokens are counted.

    The model is no submodule of its blocks, so they hold it here; in a copy of the model they hold the copy.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone, self.grid = backbone, backbone.grid

    def __deepcopy__(self, memo: dict[int, Any]) -> "FollowGrid":
        copy = memo[id(self)] = object.__new__(FollowGrid)
        model = self.backbone.model
        copy.backbone, copy.grid = type(self.backbone)(memo.get(id(model), model)), self.grid
        return copy

    def __call__(self, block: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """A forward pre-hook of a block that reads tokens [batch, tokens, dim].

        Raises:
            ArgumentError: another number of tokens than the model's grid has.
            ArgumentTypeError: a model whose tokens keep to no grid any more.
        """
        if isinstance(inputs[0], torch.fx.Proxy):
            return
        self.backbone.check_fixed()
        grid = self.backbone.grid
        if grid != self.grid:
            set_grid(self.backbone.model, grid)
            self.grid = grid
        tokens = inputs[0].shape[1]
        if tokens != grid.tokens:
            raise ArgumentError(
                f"a block was given {tokens} tokens, and the model says {grid.prefix_tokens} + {grid.freq_bins} * "
                f"{grid.time_steps} = {grid.tokens}; where its input, prefix tokens or position embedding have been "
                f"changed, its own settings must say so (timm: set_input_size, num_prefix_tokens; transformers: config)"
            )


def follow_grid(backbone: Backbone) -> None:
    """Have what is in the blocks follow the grid that the model has."""
    hook = FollowGrid(backbone)
    for block in backbone.blocks:
        block.register_forward_pre_hook(hook)


def set_grid(model: nn.Module, grid: TokenGrid) -> None:
    """Tell what looks at neighbours on the grid, adapters and what `merge` makes of them, how the tokens lie."""
    for module in model.modules():
        own = getattr(module, "set_grid", None)
        if callable(own):
            own(grid)
