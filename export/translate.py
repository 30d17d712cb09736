"""PyTorch's modules to ONNX graphs in memory."""

from ast import literal_eval
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from fastloaa.export.repeated import DOMAIN, NotRepeatedError, Repeated
from fastloaa.extras import optional


def translate(
    module: nn.Module, blocks: nn.Sequential | nn.ModuleList, args: tuple[Any, ...], **options: Any
) -> torch.onnx.ONNXProgram:
    """`torch.onnx.export` without a file, of fewer blocks where some are alike; nodes are named by their modules.

    Args:
        module: in evaluation mode.
        blocks: the part of it that may be made of blocks that are alike.
        args: an example of what it takes.
        options: as `torch.onnx.export` takes them.

    Raises:
        torch.onnx.OnnxExporterError: it cannot be translated.
    """
    repeated = Repeated(module, blocks)
    if repeated.likes:
        try:
            return _translated(module, args, options, repeated)
        except (NotRepeatedError, torch.onnx.OnnxExporterError):
            pass  # whatever it is that a mark cannot stand for, the blocks themselves can
    return _translated(module, args, options)


def _translated(
    module: nn.Module, args: tuple[Any, ...], options: dict[str, Any], repeated: Repeated | None = None
) -> torch.onnx.ONNXProgram:
    with ExitStack() as stack:
        if repeated:
            stack.enter_context(repeated.standing_in())
        program = torch.onnx.export(module, args, **options, dynamo=True, verbose=False, optimize=False)
    assert program is not None
    with ExitStack() as stack:
        if repeated:
            stack.enter_context(repeated.hidden(program.model.graph))
        program.optimize()
    for node in program.model.graph.all_nodes():
        scopes = literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
        if len(scopes) > 1:
            node.name = f"{scopes[-2]}/{node.name}"  # e.g. model.backbone.blocks.0.mlp.fc1/...
        node.metadata_props.clear()  # stack traces, with the paths of this machine
    if repeated:
        repeated.expand(program.model.graph)
        del program.model.opset_imports[DOMAIN]
        _fold(program.model)
    return program


def _fold(model: Any) -> None:
    """Compute what depends on weights alone, such as their transposes."""
    passes = optional("onnx_ir.passes.common")
    optional("onnxscript.optimizer").fold_constants(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    passes.RemoveUnusedNodesPass()(model)
