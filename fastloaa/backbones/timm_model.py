"""What timm's vision transformers have in common."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, cast

from torch import nn

from fastloaa.backbones.base import Backbone
from fastloaa.backbones.blocks import BlockLayout
from fastloaa.errors import ArgumentTypeError
from fastloaa.grid import TokenGrid


class TimmBackbone(Backbone):
    """A transformer of timm whose patches lie row-major (frequency = rows) after its prefix tokens.

    Attributes:
        block_type: the class of the blocks that adapters stand beside.
        parts: what those blocks call their parts.
    """

    block_type: ClassVar[type[nn.Module]]
    parts: ClassVar[BlockLayout]

    @property
    def vit(self) -> Any:
        """The model, whose attributes no type of timm's declares."""
        return cast(Any, self.model)

    @property
    def blocks(self) -> nn.Sequential | nn.ModuleList:
        return self.vit.blocks

    @property
    def dim(self) -> int:
        return self.vit.embed_dim

    @property
    def grid(self) -> TokenGrid:
        vit = self.vit
        if not isinstance(vit.patch_drop, (nn.Identity, type(None))):
            raise ArgumentTypeError(
                "the model has patch_drop_rate, so its tokens keep to no fixed grid; build it without"
            )
        if vit.patch_embed.grid_size is None:
            raise ArgumentTypeError("the model has no img_size, so its tokens keep to no fixed grid; build it with one")
        rows, cols = vit.patch_embed.grid_size
        return TokenGrid(rows, cols, vit.num_prefix_tokens)

    def check_fixed(self) -> None:
        if not getattr(self.vit.patch_embed, "strict_img_size", True):
            raise ArgumentTypeError(
                "the model has come to take images of any size (strict_img_size=False), so its tokens keep to no fixed "
                "grid; model.set_input_size((mel_bins, frames)) is how to give it another size"
            )

    def adapted(self) -> None:
        """A model of any size (timm's dynamic_img_size) keeps to the one that it was built for or set to."""
        if hasattr(self.vit.patch_embed, "strict_img_size"):
            self.vit.patch_embed.strict_img_size = True

    def restored(self) -> None:
        if self.vit.dynamic_img_size:
            self.vit.patch_embed.strict_img_size = False

    @property
    def head(self) -> Mapping[str, nn.Module]:
        """The classifier or classifiers and the norm before them."""
        names = ("fc_norm", "head", "head_dist")
        return {name: module for name in names if (module := getattr(self.model, name, None)) is not None}

    @property
    @abstractmethod
    def registers(self) -> int:
        """How many of the prefix tokens are registers, which stand after the others."""

    @property
    def tokens_read(self) -> int | None:
        prefix = self.vit.num_prefix_tokens
        return prefix if prefix and self.vit.global_pool == "token" and self.vit.attn_pool is None else None

    @property
    def image_size(self) -> tuple[int, int, int]:
        """(channels, height, width) of what the model reads."""
        height, width = self.vit.patch_embed.img_size
        return self.vit.patch_embed.proj.in_channels, height, width

    def layout(self, index: int, block: nn.Module) -> BlockLayout:
        expected = self.block_type
        if not isinstance(block, expected) or type(block).forward is not expected.forward:
            raise ArgumentTypeError(
                f"block {index} is a {type(block).__name__}; adapters stand beside timm's pre-norm {expected.__name__} "
                f"(x + attn(norm1(x)), x + mlp(norm2(x))): choose a model made of those"
            )
        return self.parts

    def fit_positions(self) -> None:
        """Fit what else depends on the grid, after the patch embedding has been exchanged for one of another grid."""
