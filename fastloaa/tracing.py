"""What a traced graph is for."""

import torch


def exporting() -> bool:
    """Whether torch.export traces, for a runtime other than PyTorch.

    Not `torch.compiler.is_exporting` alone: in torch 2.11 Dynamo takes that for true in plain torch.compile as well.
    """
    return torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()
