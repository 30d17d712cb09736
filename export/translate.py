"""PyTorch's modules to ONNX graphs in memory."""

from ast import literal_eval
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from threading import Lock
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fastloaa.export.repeated import DOMAIN, NotRepeatedError, Repeated
from fastloaa.extras import optional

_LOCK = Lock()


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Threads wait for each other: what `torch.onnx.export` sets, and warnings and stderr, are the process's."""
    with _LOCK:
        _begin_in_a_thread_that_stays()
        yield


@cache
def _begin_in_a_thread_that_stays() -> ThreadPoolExecutor:
    """Once the first thread that traced anything has ended, the next takes the process down (PyTorch 2.11, no GPU)."""

    def trace() -> None:
        with FakeTensorMode():
            pass

    threads = ThreadPoolExecutor(1, "tracing")
    threads.submit(trace).result()
    return threads


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
