"""onnxruntime's own fused operators (domain com.microsoft)."""

from pathlib import Path
from typing import Any

from fastloaa.adapters.widened import WidenedAttention
from fastloaa.backbones import Backbone
from fastloaa.extras import optional


def fuse(path: Path, backbone: Backbone) -> None:
    """Rewrite a float32 file by onnxruntime's transformer optimiser: SkipLayerNormalization and what else it finds.

    The file then runs in onnxruntime alone.
    """
    onnx, optimiser = optional("onnx"), optional("onnxruntime.transformers.optimizer")
    attn: Any = backbone.blocks[0].attn
    heads = attn.shape.heads if isinstance(attn, WidenedAttention) else attn.num_heads
    model = optimiser.optimize_model(
        str(path), model_type="vit", num_heads=heads, hidden_size=backbone.dim, opt_level=2, only_onnxruntime=True
    ).model
    used = {node.domain for node in model.graph.node}
    for opset in [entry for entry in model.opset_import if entry.domain not in used]:
        model.opset_import.remove(opset)  # of every domain that onnxruntime knows
    onnx.save(model, path)
