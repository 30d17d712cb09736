"""`loaa()`, the one operation of this library, and the choice of the backend that runs it."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from fastloaa.activations import ACTIVATIONS
from fastloaa.gemm_shift import loaa_gemm_shift
from fastloaa.grid import TokenGrid, TokenOrder
from fastloaa.reference import loaa_reference

Backend = Literal["auto", "reference", "torch", "triton"]


@dataclass(frozen=True)
class Choice:
    """The backend that runs a call, and why."""

    backend: Literal["reference", "torch", "triton"]
    reason: str

    def __str__(self) -> str:
        return f"{self.backend}: {self.reason}"


class BackendError(RuntimeError):
    """The backend that was asked for cannot run this call."""


def loaa(
    x: Tensor,
    down_weight: Tensor,
    up_weight: Tensor,
    *,
    freq_bins: int,
    prefix_tokens: int = 0,
    token_order: TokenOrder = "freq",
    block_out: Tensor | None = None,
    skip: Tensor | None = None,
    down_bias: Tensor | None = None,
    up_bias: Tensor | None = None,
    hidden_mask: Tensor | None = None,
    scale: float = 1.0,
    activation: str = "gelu",
    backend: Backend = "auto",
) -> Tensor:
    """Look-Aside Adapter: `[block_out +] [skip +] scale * up(activation(down(x)) * hidden_mask)`.

    `down` and `up` are convolutions over the token grid with one odd kernel (kf, kt) and zero "same" padding; a prefix
    token sees the centre tap alone (LoAA, section 2.3, equation 2).

    Args:
        x: [batch, tokens, dim], the (normed) input of the block that the adapter stands beside.
        down_weight: [r, dim, kf, kt]; up_weight: [dim, r, kf, kt]; as Conv2d stores them, (frequency, time).
        freq_bins, prefix_tokens, token_order: the grid, see `TokenGrid`; time steps follow from the token count.
        block_out, skip: [batch, tokens, dim], added to the branch in the same pass.
        down_bias: [r]; up_bias: [dim].
        hidden_mask: [batch, tokens, r], multiplied onto the hidden activations (dropout).
        activation: "gelu" (exact), "gelu_tanh", "relu" or "silu".
        backend: see `choose_backend`.

    Under autocast x and the weights are cast to its dtype. The summands keep theirs, and the result has the dtype
    that adding them would have.

    Returns:
        [batch, tokens, dim].

    Raises:
        ValueError: shapes, kernel, activation or dtypes that do not fit.
        BackendError: the backend asked for cannot run this call.
    """
    _check(x, down_weight, up_weight, down_bias, up_bias, hidden_mask, block_out, skip, activation)
    grid = TokenGrid.from_tokens(x.shape[1], freq_bins, prefix_tokens, token_order)
    choice = choose_backend(x, backend)

    dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
    if down_weight.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
        raise ValueError(
            f"x is {x.dtype} and the adapter's weights are {down_weight.dtype}; "
            f"give both one dtype (layer.to({x.dtype})) or run under torch.autocast"
        )
    x, down_weight, up_weight = x.to(dtype), down_weight.to(dtype), up_weight.to(dtype)  # no copy where it fits
    branch: dict[str, Any] = {
        "down_bias": None if down_bias is None else down_bias.to(dtype),
        "up_bias": None if up_bias is None else up_bias.to(dtype),
        "hidden_mask": None if hidden_mask is None else hidden_mask.to(dtype),
        "scale": scale,
        "activation": activation,
    }
    if choice.backend == "torch" and all(t is None or t.dtype == dtype for t in (block_out, skip)):
        return loaa_gemm_shift(x, down_weight, up_weight, grid, block_out=block_out, skip=skip, **branch)
    run = loaa_gemm_shift if choice.backend == "torch" else loaa_reference
    out = run(x, down_weight, up_weight, grid, **branch)
    for summand in (block_out, skip):
        out = out if summand is None else out + summand
    return out


def choose_backend(x: Tensor, backend: Backend = "auto") -> Choice:
    """Which implementation runs for input `x`.

    "reference": two Conv2d as in the paper. "torch": one GEMM each way and shifted sums, on any device.
    "auto": the fastest that can run.

    Raises:
        ValueError: an unknown name.
        BackendError: the backend asked for cannot run on `x`.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend is one of {', '.join(get_args(Backend))}; got {backend!r}")
    if backend == "triton":
        raise BackendError(
            'backend "triton" was asked for and this version has no fused kernel; use backend="auto" or "torch"'
        )
    if backend == "auto":
        return Choice("torch", f"GEMM and shifted sums are the fastest on {x.device.type}")
    return Choice(backend, "asked for")


def _check(
    x: Tensor,
    down_weight: Tensor,
    up_weight: Tensor,
    down_bias: Tensor | None,
    up_bias: Tensor | None,
    hidden_mask: Tensor | None,
    block_out: Tensor | None,
    skip: Tensor | None,
    activation: str,
) -> None:
    """Shapes, once for all backends, so that every one of them refuses the same input with the same words."""
    if x.dim() != 3:
        raise ValueError(f"x is [batch, tokens, dim], got shape {tuple(x.shape)}; flatten the grid into tokens first")
    rank, dim, kf, kt = down_weight.shape
    if kf % 2 == 0 or kt % 2 == 0:
        raise ValueError(f"the kernel (frequency, time) has odd sizes so that it is centred, got ({kf}, {kt})")
    if tuple(up_weight.shape) != (dim, rank, kf, kt):
        raise ValueError(
            f"down_weight {tuple(down_weight.shape)} needs an up_weight of shape {(dim, rank, kf, kt)}, "
            f"got {tuple(up_weight.shape)}"
        )
    if x.shape[2] != dim:
        raise ValueError(
            f"x has {x.shape[2]} channels and the adapter {dim}; build it as LoAA({x.shape[2]}, ...) for this model"
        )
    expected = {
        "down_bias": (down_bias, (rank,)),
        "up_bias": (up_bias, (dim,)),
        "hidden_mask": (hidden_mask, (*x.shape[:2], rank)),
        "block_out": (block_out, tuple(x.shape)),
        "skip": (skip, tuple(x.shape)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {shape} for x {tuple(x.shape)}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is one of {', '.join(ACTIVATIONS)}; got {activation!r}")
