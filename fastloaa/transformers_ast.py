"""Hugging Face transformers' AST with adapters; imported only where such a model is at hand."""

from typing import Any

from torch import Tensor, nn
from transformers.models.audio_spectrogram_transformer.modeling_audio_spectrogram_transformer import ASTLayer

from fastloaa.adapt import beside
from fastloaa.adapter import LoAA
from fastloaa.errors import ArgumentError
from fastloaa.ops.normed import norm_once


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


class AdaptedASTLayer(ASTLayer):
    """`ASTLayer` with adapters beside its attention and its FFN, as `AdaptedBlock` is of a timm block.

    Takes over the layer's children under their own names. It is an `ASTLayer` still, so that transformers finds it for
    `output_hidden_states` and gradient checkpointing.
    """

    def __init__(
        self, layer: ASTLayer, loaa_attn: LoAA | None, loaa_ffn: LoAA | None, normed_input: bool = True
    ) -> None:
        nn.Module.__init__(self)  # not ASTLayer's own, which would draw weights
        for name, child in layer.named_children():
            self.add_module(name, child)
        self.gradient_checkpointing = layer.gradient_checkpointing
        if layer.gradient_checkpointing:
            self._gradient_checkpointing_func = layer._gradient_checkpointing_func
        self.loaa_attn = loaa_attn
        self.loaa_ffn = loaa_ffn
        self.normed_input = normed_input
        self.train(layer.training)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        """[batch, tokens, dim] -> the same."""
        x = hidden_states
        normed, source = norm_once(self.layernorm_before, x)
        out = self.dropout(self.attention(normed, attention_mask, **kwargs)[0])
        x = beside(self.loaa_attn, self.normed_input, normed, out, x, source)
        normed, source = norm_once(self.layernorm_after, x)
        return beside(self.loaa_ffn, self.normed_input, normed, self.dropout(self.mlp(normed)), x, source)
