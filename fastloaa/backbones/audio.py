"""Audio models around a backbone: `AST`, and anything that answers as it does."""

from collections.abc import Mapping
from typing import Any, Protocol, TypeGuard, cast

from torch import nn

from fastloaa.backbones.base import Backbone
from fastloaa.backbones.blocks import AdaptedBlock, BlockLayout
from fastloaa.backbones.registry import backbone_of
from fastloaa.grid import TokenGrid


class AudioTransformer(Protocol):
    """A model with a vision transformer inside, a grid of its own and a head: `AST` is one."""

    backbone: nn.Module
    head: nn.Module

    @property
    def grid(self) -> TokenGrid: ...

    def config(self) -> dict[str, Any]: ...


def is_audio_transformer(model: nn.Module) -> TypeGuard[AudioTransformer]:
    """Whether `model` has what an `AudioTransformer` has."""
    # Not isinstance: from Python 3.12 on a protocol does not see submodules, which nn.Module's __getattr__ finds.
    modules = (getattr(model, name, None) for name in ("backbone", "head"))
    if not all(isinstance(module, nn.Module) for module in modules) or not callable(getattr(model, "config", None)):
        return False
    return hasattr(type(model), "grid") or "grid" in vars(model)  # a property may raise


class AudioBackbone(Backbone):
    """Says of grid, head and configuration what the model says, and of the rest what its backbone's family does."""

    kind = "fastloaa.AST"

    @classmethod
    def matches(cls, model: nn.Module) -> bool:
        return is_audio_transformer(model)

    @property
    def audio(self) -> AudioTransformer:
        return cast(AudioTransformer, self.model)

    @property
    def inner(self) -> Backbone:
        """What the model's backbone is."""
        return backbone_of(self.audio.backbone)

    @property
    def trunk(self) -> nn.Module:
        return self.inner.trunk

    @property
    def blocks(self) -> nn.Sequential | nn.ModuleList:
        return self.inner.blocks

    @property
    def dim(self) -> int:
        return self.inner.dim

    @property
    def grid(self) -> TokenGrid:
        return self.audio.grid

    def check_fixed(self) -> None:
        self.inner.check_fixed()

    @property
    def head(self) -> Mapping[str, nn.Module]:
        return {"head": self.audio.head}

    @property
    def adapted_block(self) -> type[AdaptedBlock]:
        return self.inner.adapted_block

    @property
    def tokens_read(self) -> int | None:
        return getattr(self.model, "tokens_read", None)

    def layout(self, index: int, block: nn.Module) -> BlockLayout:
        return self.inner.layout(index, block)

    def config(self) -> dict[str, Any] | None:
        return self.audio.config()

    def adapted(self) -> None:
        self.inner.adapted()

    def restored(self) -> None:
        self.inner.restored()
