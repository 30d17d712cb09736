"""What a traced graph is for."""

import torch


def exporting() -> bool:
    """Whether torch.export traces, for a runtime other than PyTorch.

    Not `torch.compiler.is_exporting` alone: in torch 2.11 Dynamo takes that for true in plain torch.compile as well.
    """
    return torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()


def recorded(tensor: torch.Tensor) -> bool:
    """Whether something records or transforms what is done to the tensor: compilers, exporters, modes, subclasses."""
    return (
        torch.compiler.is_compiling()
        or type(tensor) not in (torch.Tensor, torch.nn.Parameter)
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._is_tracing()
    )
