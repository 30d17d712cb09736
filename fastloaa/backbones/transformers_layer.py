"""A layer of Hugging Face transformers' AST with adapters; imported only where such a model is at hand."""

from typing import Any

from torch import Tensor
from transformers.models.audio_spectrogram_transformer.modeling_audio_spectrogram_transformer import ASTLayer

from fastloaa.backbones.blocks import AdaptedBlock


class AdaptedASTLayer(AdaptedBlock, ASTLayer):
    """`AdaptedBlock` that is an `ASTLayer` still, so that transformers finds it for `output_hidden_states` and gradient
    checkpointing."""

    def forward(  # type: ignore[override]  # transformers' names
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        """[batch, tokens, dim] -> the same."""
        return super().forward(hidden_states, attention_mask=attention_mask, **kwargs)

    def attend(self, normed: Tensor, **attention: Any) -> Tensor:
        return super().attend(normed, **attention)[0]
