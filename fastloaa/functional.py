"""`loaa()`, the one operation of this library, and the choice of the backend that runs it."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from fastloaa.activations import ACTIVATIONS
from fastloaa.gemm_shift import loaa_gemm_shift
from fastloaa.grid import TokenGrid, TokenOrder
from fastloaa.normed import NormedFrom
from fastloaa.reference import loaa_reference

try:
    from fastloaa.cpu_ops import loaa_forward
    from fastloaa.kernels import interpreted
except ImportError:  # no triton on this platform: everything else works, and asking for it says so
    interpreted, loaa_forward = None, None  # type: ignore[assignment]

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
    normed_from: NormedFrom | None = None,
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
        normed_from: what x is the LayerNorm of. The backward pass then recomputes x, and nothing as wide as the model
            is kept for it; "reference" keeps x all the same. x gets its gradient as ever, `normed_from` none.
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
    autocast = torch.is_autocast_enabled(x.device.type)
    dtype = torch.get_autocast_dtype(x.device.type) if autocast else x.dtype
    if down_weight.dtype != dtype and not autocast:
        raise ValueError(
            f"x is {x.dtype} and the adapter's weights are {down_weight.dtype}; "
            f"give both one dtype (layer.to({x.dtype})) or run under torch.autocast"
        )
    kernel = (down_weight.shape[2], down_weight.shape[3])
    choice = choose_backend(x, kernel, down_weight.shape[0], backend, dtype)

    # No copy where the dtype fits already.
    down, up = down_weight.to(dtype), up_weight.to(dtype)
    extras = [None if t is None else t.to(dtype) for t in (down_bias, up_bias, hidden_mask)]
    if choice.backend == "triton":
        return _fused(x, down, up, extras, block_out, skip, normed_from, grid, scale, activation)
    x = x.to(dtype)
    names = ("down_bias", "up_bias", "hidden_mask")
    branch: dict[str, Any] = {**dict(zip(names, extras, strict=True)), "scale": scale, "activation": activation}
    if choice.backend == "reference":
        out = loaa_reference(x, down, up, grid, **branch)
    elif all(t is None or t.dtype == dtype for t in (block_out, skip)):
        branch |= {"block_out": block_out, "skip": skip, "normed_from": normed_from}
        return loaa_gemm_shift(x, down, up, grid, **branch)
    else:
        out = loaa_gemm_shift(x, down, up, grid, normed_from=normed_from, **branch)
    for summand in (block_out, skip):
        out = out if summand is None else out + summand
    return out


def _fused(
    x: Tensor,
    down: Tensor,
    up: Tensor,
    extras: list[Tensor | None],
    block_out: Tensor | None,
    skip: Tensor | None,
    normed_from: NormedFrom | None,
    grid: TokenGrid,
    scale: float,
    activation: str,
) -> Tensor:
    """The Triton kernels; x and the summands go in as they are and are rounded as they are read."""
    tensors = (x, down, up, *extras, block_out, skip)
    keep_pre = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    time_major = grid.token_order == "time"
    *source, eps = (normed_from if keep_pre else None) or (None, None, None, 0.0)
    settings = (grid.freq_bins, grid.prefix_tokens, time_major, scale, activation)
    return loaa_forward(*tensors, *source, *settings, eps, keep_pre)[0]


def choose_backend(
    x: Tensor,
    kernel: tuple[int, int],
    bottleneck: int,
    backend: Backend = "auto",
    dtype: torch.dtype | None = None,
) -> Choice:
    """Which implementation runs for input `x`, an adapter's kernel (frequency, time) and its bottleneck.

    "reference": two Conv2d as in the paper. "torch": one GEMM each way and shifted sums, on any device. "triton": the
    fused kernels, on CUDA tensors. "auto": the fastest that can run.

    Args:
        dtype: of the computation, x's where None; under autocast it is autocast's.

    Raises:
        ValueError: an unknown name.
        BackendError: the backend asked for cannot run this.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend is one of {', '.join(get_args(Backend))}; got {backend!r}")
    if backend in ("reference", "torch"):
        return Choice(backend, "asked for")
    obstacle = _no_triton(x, kernel, bottleneck, dtype or x.dtype)
    if backend == "triton":
        if obstacle:
            raise BackendError(
                f'backend "triton" was asked for and cannot run: {obstacle}; use backend="auto" or "torch"'
            )
        return Choice("triton", "asked for")
    if x.device.type == "cpu":
        return Choice("torch", "GEMM and shifted sums are the fastest on a CPU")
    return Choice("torch", f"the fused kernels cannot run: {obstacle}") if obstacle else Choice("triton", "fused")


def _no_triton(x: Tensor, kernel: tuple[int, int], bottleneck: int, dtype: torch.dtype) -> str | None:
    """Why the fused kernels cannot run, None if they can."""
    if loaa_forward is None:
        return "the package triton is not installed"
    if x.device.type != "cuda" and not (interpreted.INTERPRETED and x.device.type == "cpu"):
        return f"x is on {x.device.type}, and the kernels need CUDA tensors"
    if min(kernel) > 1:
        return f"kernel {kernel} is not one-dimensional"
    if max(kernel) > 7 or bottleneck > 256:
        return f"kernel {kernel} with bottleneck {bottleneck} is beyond 7 taps and 256 rows"
    if x.shape[2] % 16:
        return f"dim {x.shape[2]} is not divisible by 16"
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"{dtype} is not float32, float16 or bfloat16"
    if x.device.type == "cpu" and (reason := interpreted.obstacle(dtype)):
        return reason
    if x.device.type == "cuda" and torch.cuda.get_device_capability(x.device) < (8, 0):
        return "the GPU is older than compute capability 8.0"
    return None


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
