"""What is looking at a call, besides the one who called."""

from collections.abc import Callable

import torch
from torch import nn
from torch.autograd import forward_ad

# Before torch 2.7 there was no is_exporting; outside Dynamo nothing but torch.export says that it compiles.
_is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)


def exporting() -> bool:
    """Whether torch.export traces, for a runtime other than PyTorch.

    Not `torch.compiler.is_exporting` alone: in torch 2.11 Dynamo takes that for true in plain torch.compile as well.
    """
    return _is_exporting() and not torch.compiler.is_dynamo_compiling()


def transformed() -> bool:
    """Whether torch.func, forward-mode differentiation or torch.jit.trace sees the single operations.

    Then they are PyTorch's own, each with a derivative, a batching rule and a place in TorchScript, and none of them is
    in place: a tensor that is not batched cannot take up one that is.
    """
    return (
        torch._C._are_functorch_transforms_active()  # what autograd.Function itself asks
        or forward_ad._current_level >= 0
        or torch.jit.is_tracing()
    )


def hooked(module: nn.Module) -> bool:
    """Whether hooks hang on a module, or a forward of its own, so that it may compute other than its class says."""
    return bool(module._forward_hooks or module._forward_pre_hooks) or "forward" in module.__dict__


def recorded(tensor: torch.Tensor) -> bool:
    """Whether something records or transforms what is done to the tensor: compilers, exporters, modes, subclasses."""
    return (
        torch.compiler.is_compiling()
        or type(tensor) not in (torch.Tensor, torch.nn.Parameter)
        or torch._C._len_torch_dispatch_stack() > 0
        or transformed()
    )
