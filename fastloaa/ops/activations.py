"""The activations an adapter may have, each with its derivative for the hand-written backward passes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastloaa.errors import ArgumentError

aten = torch.ops.aten


@dataclass(frozen=True)
class Activation:
    """An elementwise function.

    Args:
        forward: x -> activation(x), any shape and floating dtype.
        backward: (grad_output, x) -> its vector-Jacobian product.
        in_place: x -> x, overwritten; by `forward` if None.
        modules: what computes it as a module of a block, of exactly these classes; `merge` asks.
    """

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]
    in_place: Callable[[Tensor], Tensor] | None = None
    modules: tuple[type[nn.Module], ...] = ()

    def overwrite(self, x: Tensor) -> Tensor:
        """activation(x) in x's memory."""
        return x.copy_(self.forward(x)) if self.in_place is None else self.in_place(x)


def _relu_backward(grad: Tensor, x: Tensor) -> Tensor:
    return aten.threshold_backward(grad, x, 0)


def _silu_backward(grad: Tensor, x: Tensor) -> Tensor:
    # For a second derivative, which the operation does not have; it rounds otherwise.
    if torch.is_grad_enabled() and (grad.requires_grad or x.requires_grad):
        sigmoid = torch.sigmoid(x)
        return grad * sigmoid * (1 + x * (1 - sigmoid))
    return aten.silu_backward(grad, x)


ACTIVATIONS: dict[str, Activation] = {
    "gelu": Activation(F.gelu, aten.gelu_backward, aten.gelu_),  # exact (erf), the paper's and AST's
    "gelu_tanh": Activation(
        partial(F.gelu, approximate="tanh"),
        partial(aten.gelu_backward, approximate="tanh"),
        partial(aten.gelu_, approximate="tanh"),
    ),
    "relu": Activation(F.relu, _relu_backward, aten.relu_, (nn.ReLU,)),
    "silu": Activation(F.silu, _silu_backward, aten.silu_, (nn.SiLU,)),
}
"""The activations by name. Those that `fastloaa.kernels.elementwise` has no formula of run in PyTorch."""


def check_activation(name: object) -> None:
    """Raise ValueError unless it is a name in `ACTIVATIONS`; modules and functions are not."""
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ArgumentError(f"activation is one of {', '.join(ACTIVATIONS)}; got {name!r}")
