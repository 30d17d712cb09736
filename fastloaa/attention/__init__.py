"""Where the tokens of a moment look: attention maps, and the figure of them, `fastloaa.attention.figure`."""

from fastloaa.attention.maps import AttentionError, attention_maps, token_attention, without_adapters

__all__ = ["AttentionError", "attention_maps", "token_attention", "without_adapters"]
