"""The activations an adapter may have, each with its derivative for the hand-written backward passes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from fastloaa.errors import ArgumentError

aten = torch.ops.aten


@dataclass(frozen=True)
class Activation:
    """An elementwise function; `backward(grad_output, input)` is its vector-Jacobian product."""

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]


def _relu_backward(grad: Tensor, x: Tensor) -> Tensor:
    return aten.threshold_backward(grad, x, 0)


def _silu_backward(grad: Tensor, x: Tensor) -> Tensor:
    # For a second derivative, which the operation does not have; it rounds otherwise.
    if torch.is_grad_enabled() and (grad.requires_grad or x.requires_grad):
        sigmoid = torch.sigmoid(x)
        return grad * sigmoid * (1 + x * (1 - sigmoid))
    return aten.silu_backward(grad, x)


ACTIVATIONS: dict[str, Activation] = {
    "gelu": Activation(F.gelu, aten.gelu_backward),  # exact (erf), the paper's and AST's
    "gelu_tanh": Activation(partial(F.gelu, approximate="tanh"), partial(aten.gelu_backward, approximate="tanh")),
    "relu": Activation(F.relu, _relu_backward),
    "silu": Activation(F.silu, _silu_backward),
}


def check_activation(name: object) -> None:
    """Raise ValueError unless it is a name in `ACTIVATIONS`; modules and functions are not."""
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ArgumentError(f"activation is one of {', '.join(ACTIVATIONS)}; got {name!r}")
