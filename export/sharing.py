"""Copies of modules that take no memory for weights that stay as they are."""

import copy
from typing import TypeVar

from torch import Tensor, nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def sharing_copy(module: ModuleT) -> ModuleT:
    """A copy in evaluation mode, with frozen parameters of its own in the memory of the module's."""
    # A subclass may hold more than its memory.
    plain = [parameter for parameter in module.parameters() if type(parameter) is nn.Parameter]
    memo = {id(parameter): nn.Parameter(parameter.detach(), requires_grad=False) for parameter in plain}
    return copy.deepcopy(module, memo).requires_grad_(False).eval()


def unshare(module: nn.Module, other: nn.Module) -> None:
    """Copy the parameters of a module that lie in the memory of the other's."""
    memory = {_memory(parameter) for parameter in other.parameters()}
    for parameter in module.parameters():
        if _memory(parameter) in memory:
            parameter.data = parameter.data.clone()


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
