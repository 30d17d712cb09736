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
        if self.layout.mlp == "mlp":
            kwargs["attention_mask"] = attention_mask
        return super().forward(hidden_states, **kwargs)

    def attend(self, normed: Tensor, **attention: Any) -> Tensor:
        out = super().attend(normed, **attention)
        return out if isinstance(out, Tensor) else out[0]

    def ffn_out(self, normed: Tensor) -> Tensor:
        if self.layout.mlp == "mlp":
            return super().ffn_out(normed)
        # Before transformers 5.9 `output` adds the residual stream itself, which is left to the adapters here.
        layer: Any = self
        return layer.output.dropout(layer.output.dense(layer.intermediate(normed)))
