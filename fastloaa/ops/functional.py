"""`loaa()`, the one operation of this library, and the choice of the backend that runs it."""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from fastloaa.errors import ArgumentError, FastloaaError
from fastloaa.grid import TokenGrid, TokenOrder
from fastloaa.inputs import as_tensor
from fastloaa.kernels.call import OPERANDS, Call
from fastloaa.kernels.remembered import Remembered
from fastloaa.ops.activations import check_activation
from fastloaa.ops.autocast import autocast_dtype
from fastloaa.ops.gemm_shift import loaa_gemm_shift
from fastloaa.ops.normed import NormedFrom
from fastloaa.ops.reference import loaa_reference
from fastloaa.ops.tracing import recorded, transformed
from fastloaa.ops.triton_version import NO_TRITON, NOT_COMPILED

if NO_TRITON is None:
    import fastloaa.ops.cpu  # noqa: F401 (registers what CPU tensors get)
    from fastloaa.kernels import elementwise, interpreted
    from fastloaa.ops.library import fused
else:  # everything else works, and asking for it says so
    elementwise, interpreted, fused = None, None, None  # type: ignore[assignment]

TOKENS = "[batch, tokens, dim]"

Backend = Literal["auto", "reference", "torch", "triton"]
BACKENDS = get_args(Backend)  # here, since the compiler of torch 2.6 cannot follow get_args


@dataclass(frozen=True)
class Choice:
    """The backend that runs a call, and why."""

    backend: Literal["reference", "torch", "triton"]
    reason: str

    def __str__(self) -> str:
        return f"{self.backend}: {self.reason}"


class BackendError(FastloaaError, RuntimeError):
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
        activation: "gelu" (exact), "gelu_tanh", "relu" or "silu", or what was added to `ACTIVATIONS`.
        backend: see `choose_backend`.

    Under autocast x and the weights are cast to its dtype. The summands keep theirs, and the result has the dtype
    that adding them would have.

    Returns:
        [batch, tokens, dim].

    Raises:
        ArgumentError: shapes, kernel, activation or dtypes that do not fit.
        BackendError: the backend asked for cannot run this call.

    Examples:
        >>> import torch
        >>> from fastloaa import loaa
        >>> x, down, up = torch.randn(1, 2 + 8 * 4, 16), torch.randn(4, 16, 1, 3), torch.randn(16, 4, 1, 3)
        >>> loaa(x, down, up, freq_bins=8, prefix_tokens=2, skip=x).shape
        torch.Size([1, 34, 16])
    """
    x = as_tensor("x", x, down_weight, TOKENS)
    block_out = None if block_out is None else as_tensor("block_out", block_out, down_weight, TOKENS)
    skip = None if skip is None else as_tensor("skip", skip, down_weight, TOKENS)
    source = normed_from or _NOT_NORMED
    call = Call(
        x,
        down_weight,
        up_weight,
        down_bias,
        up_bias,
        hidden_mask,
        block_out,
        skip,
        source.residual,
        source.weight,
        source.bias,
        freq_bins,
        prefix_tokens,
        token_order == "time",
        scale,
        activation,
        source.eps,
    )
    autocast = autocast_dtype(x.device.type)
    if recorded(x):  # a compiler runs this once, and cannot look up shapes that it does not know yet
        known, memo = _route(call, token_order, autocast, backend), None
    else:
        key = (call.layout(), token_order, autocast, backend)
        found: _Route | None = _routes.get(key)
        if found is None:
            found = _route(call, token_order, autocast, backend)
            _routes.keep(key, found)
        known, memo = found, found.memo
    if known.cast is not None:
        call = _cast(call, known.cast, known.backend)

    if known.backend == "triton":
        return fused(call, memo)
    if known.backend == "reference":
        return loaa_reference(call)
    if all(summand.dtype == call.x.dtype for summand in call.summands):
        return loaa_gemm_shift(call)
    out = loaa_gemm_shift(call.without("block_out", "skip"))
    for summand in call.summands:
        out = out + summand
    return out


@dataclass(frozen=True, slots=True)
class _Route:
    """What a call of some layout has been found to need: its backend, and a dtype where something must be cast."""

    backend: Literal["reference", "torch", "triton"]
    cast: torch.dtype | None
    memo: dict[Any, Any] = field(default_factory=dict)  # the kernels' own


_NOT_NORMED = NormedFrom(None, None, None, 0.0)  # type: ignore[arg-type]
_routes = Remembered()


def _route(call: Call, token_order: TokenOrder, autocast: torch.dtype | None, backend: Backend) -> _Route:
    """Check a call and choose its backend.

    Raises:
        ArgumentError, BackendError: as `loaa`.
    """
    _check(call)
    TokenGrid.from_tokens(call.x.shape[1], call.freq_bins, call.prefix_tokens, token_order)
    dtype = autocast or call.x.dtype
    if call.down.dtype != dtype and not autocast:
        raise ArgumentError(
            f"x is {call.x.dtype} and the adapter's weights are {call.down.dtype}; "
            f"give both one dtype (layer.to({call.x.dtype})) or run under torch.autocast"
        )
    choice = choose_backend(call.x, call.kernel, call.down.shape[0], backend, dtype, call.activation)
    # The kernels round x and the summands as they read them, and want weights in the order of a GEMM's operand.
    rest = (call.down, call.up, call.down_bias, call.up_bias, call.mask)
    tensors = rest if choice.backend == "triton" else (call.x, *rest)
    unlike = any(tensor is not None and tensor.dtype != dtype for tensor in tensors)
    if choice.backend == "triton":
        weights = (call.down, call.up)
        unlike = unlike or not all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
    return _Route(choice.backend, dtype if unlike else None)


def _cast(call: Call, dtype: torch.dtype, backend: str) -> Call:
    """Weights, biases and mask in one dtype, and x too but for the kernels.

    No copy where dtype and layout fit already. The module stores weights as Conv2d does, since PyTorch's tools take
    flat views of parameters; for the kernels they are brought into the order of a GEMM's operand.
    """
    layout = torch.channels_last if backend == "triton" else torch.preserve_format
    return Call(
        call.x if backend == "triton" else call.x.to(dtype),
        call.down.to(dtype, memory_format=layout),
        call.up.to(dtype, memory_format=layout),
        _narrow(call.down_bias, dtype),
        _narrow(call.up_bias, dtype),
        _narrow(call.mask, dtype),
        call.block_out,
        call.skip,
        call.residual,
        call.norm_weight,
        call.norm_bias,
        *call.settings(),
    )


def _narrow(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(dtype)


def choose_backend(
    x: Tensor,
    kernel: tuple[int, int],
    bottleneck: int,
    backend: Backend = "auto",
    dtype: torch.dtype | None = None,
    activation: str = "gelu",
) -> Choice:
    """Which implementation runs for input `x`, an adapter's kernel (frequency, time) and its bottleneck.

    "reference": two Conv2d as in the paper. "torch": one GEMM each way and shifted sums, on any device. "triton": the
    fused kernels, on CUDA tensors. "auto": the fastest that can run.

    Args:
        dtype: of the computation, x's where None; under autocast it is autocast's.
        activation: a name of `fastloaa.ops.activations.ACTIVATIONS`.

    Raises:
        ArgumentError: an unknown name.
        BackendError: the backend asked for cannot run this.
    """
    if backend not in BACKENDS:
        raise ArgumentError(f"backend is one of {', '.join(BACKENDS)}; got {backend!r}")
    if backend in ("reference", "torch"):
        return Choice(backend, "asked for")
    obstacle = _no_triton(x, kernel, bottleneck, dtype or x.dtype, activation)
    if backend == "triton":
        if obstacle:
            raise BackendError(
                f'backend "triton" was asked for and cannot run: {obstacle}; use backend="auto" or "torch"'
            )
        return Choice("triton", "asked for")
    if x.device.type == "cpu":
        return Choice("torch", "GEMM and shifted sums are the fastest on a CPU")
    return Choice("torch", f"the fused kernels cannot run: {obstacle}") if obstacle else Choice("triton", "fused")


def _no_triton(x: Tensor, kernel: tuple[int, int], bottleneck: int, dtype: torch.dtype, activation: str) -> str | None:
    """Why the fused kernels cannot run, None if they can."""
    if NO_TRITON is not None:
        return NO_TRITON
    if transformed():
        return "torch.func, forward-mode differentiation and torch.jit.trace need PyTorch's own operations"
    if x.device.type != "cuda" and not (interpreted.INTERPRETED and x.device.type == "cpu"):
        return f"x is on {x.device.type}, and the kernels need CUDA tensors"
    if x.device.type == "cuda" and NOT_COMPILED is not None:
        return NOT_COMPILED
    if activation not in elementwise.ACTIVATIONS:
        return f"activation {activation!r} has no formula in the kernels"
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


def _check(call: Call) -> None:
    """Shapes and devices, once for all backends, so that each of them refuses the same input with the same words."""
    x, activation = call.x, call.activation
    if x.dim() != 3:
        advice = "a single clip is x[None]" if x.dim() == 2 else "flatten the grid into tokens first"
        raise ArgumentError(f"x is [batch, tokens, dim], got shape {tuple(x.shape)}; {advice}")
    rank, dim, kf, kt = call.down.shape
    if kf % 2 == 0 or kt % 2 == 0:
        raise ArgumentError(f"the kernel (frequency, time) has odd sizes so that it is centred, got ({kf}, {kt})")
    if tuple(call.up.shape) != (dim, rank, kf, kt):
        raise ArgumentError(
            f"down_weight {tuple(call.down.shape)} needs an up_weight of shape {(dim, rank, kf, kt)}, "
            f"got {tuple(call.up.shape)}"
        )
    if x.shape[2] != dim:
        raise ArgumentError(
            f"x has {x.shape[2]} channels and the adapter {dim}; build it as LoAA({x.shape[2]}, ...) for this model"
        )
    expected = {
        "down_bias": (call.down_bias, (rank,)),
        "up_bias": (call.up_bias, (dim,)),
        "hidden_mask": (call.mask, (*x.shape[:2], rank)),
        "block_out": (call.block_out, tuple(x.shape)),
        "skip": (call.skip, tuple(x.shape)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ArgumentError(f"{name} has shape {tuple(tensor.shape)}, expected {shape} for x {tuple(x.shape)}")
    for name in OPERANDS:
        operand = getattr(call, name)
        if operand is not None and operand.device != x.device:  # which kernels would not notice
            given = {"down": "down_weight", "up": "up_weight", "mask": "hidden_mask"}.get(name, name)
            raise ArgumentError(f"{given} is on {operand.device} and x on {x.device}; move all to one device")
    check_activation(activation)
