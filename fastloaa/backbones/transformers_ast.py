"""Hugging Face transformers' AST; does not import transformers, which whoever made such a model has done."""

import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeGuard, cast

from torch import Tensor, nn

from fastloaa.backbones.base import Backbone
from fastloaa.backbones.blocks import AdaptedBlock, BlockLayout
from fastloaa.errors import ArgumentError, ArgumentTypeError
from fastloaa.grid import TokenGrid

if TYPE_CHECKING:
    from transformers import ASTForAudioClassification


class TransformersAST(Backbone):
    """`ASTForAudioClassification`, whose tokens lie as its configuration says."""

    kind = "transformers' ASTForAudioClassification"
    not_merged = "AST.from_transformers(model) makes fastloaa's own AST of it, adapters and all"

    @classmethod
    def matches(cls, model: nn.Module) -> bool:
        return is_transformers_ast(model)

    @property
    def ast(self) -> "ASTForAudioClassification":
        return cast("ASTForAudioClassification", self.model)

    @property
    def blocks(self) -> nn.ModuleList:
        body: Any = self.ast.audio_spectrogram_transformer
        for path in ("layers", "encoder.layer"):  # the second before transformers 5.9
            with suppress(AttributeError):
                return body.get_submodule(path)
        raise ArgumentTypeError(
            "this version of transformers builds AST in another way; pip install --upgrade transformers fastloaa"
        )

    @property
    def dim(self) -> int:
        return self.ast.config.hidden_size

    @property
    def grid(self) -> TokenGrid:
        config = self.ast.config
        projection = self.ast.audio_spectrogram_transformer.embeddings.patch_embeddings.projection
        size = (config.num_mel_bins, config.max_length)
        return TokenGrid.from_spectrogram(*size, projection.kernel_size, projection.stride, 2)

    @property
    def head(self) -> Mapping[str, nn.Module]:
        return {"classifier": self.ast.classifier}

    def layout(self, index: int, block: nn.Module) -> BlockLayout:
        if hasattr(block, "mlp"):
            return BlockLayout(
                "layernorm_before", "attention", "layernorm_after", "mlp", drop1="dropout", drop2="dropout"
            )
        # Before transformers 5.9 dropout was part of attention, and of what followed the intermediate layer.
        return BlockLayout("layernorm_before", "attention", "layernorm_after", "intermediate")

    @property
    def adapted_block(self) -> type[AdaptedBlock]:
        from fastloaa.backbones.transformers_layer import AdaptedASTLayer

        return AdaptedASTLayer

    def adapted(self) -> None:
        self.ast.audio_spectrogram_transformer.embeddings.register_forward_pre_hook(check_input)

    def restored(self) -> None:
        hooks = self.ast.audio_spectrogram_transformer.embeddings._forward_pre_hooks
        for key in [key for key, hook in hooks.items() if hook is check_input]:
            del hooks[key]


def is_transformers_ast(model: nn.Module) -> "TypeGuard[ASTForAudioClassification]":
    """Whether `model` is Hugging Face transformers' AST with its classifier; does not import transformers."""
    package = "transformers.models.audio_spectrogram_transformer"
    modeling = sys.modules.get(f"{package}.modeling_audio_spectrogram_transformer")
    return modeling is not None and isinstance(model, modeling.ASTForAudioClassification)


def check_input(embeddings: Any, inputs: tuple[Any, ...]) -> None:
    """A forward pre-hook of the model's embeddings: transformers takes spectrograms of any shape that gives as many
    patches, a transposed one too, and the adapters would look at other neighbours.

    Raises:
        ArgumentError: another shape than the configuration says.
    """
    if inputs and isinstance(inputs[0], Tensor):
        frames, mel_bins = embeddings.config.max_length, embeddings.config.num_mel_bins
        if inputs[0].dim() != 3 or tuple(inputs[0].shape[1:]) != (frames, mel_bins):
            raise ArgumentError(
                f"expected input_values [batch, max_length={frames}, num_mel_bins={mel_bins}] as model.config says, "
                f"got {tuple(inputs[0].shape)}"
            )
