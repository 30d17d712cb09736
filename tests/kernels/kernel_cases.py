"""One call of the kernels with all its gradients, and the same call of the Conv2d reference in float64."""

import itertools
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastloaa.grid import TokenOrder
from fastloaa.ops.functional import loaa

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.float16, torch.bfloat16]  # the last in the interpreter by bfloat16.py
SLOW_DTYPES = DTYPES if DEVICE == "cuda" else DTYPES[::2]
"""For tests that take long and ask little of numbers: without float16 in the interpreter."""
KERNELS = [(1, 1), (1, 3), (3, 1), (1, 5), (5, 1), (1, 7), (7, 1)]

# What no plain formulation of the same dtypes stands beside: a value meets at most four roundings to a 16-bit dtype on
# its way; float32 adds those of its sums, and on tensor cores of products in three TF32 parts.
ROUNDINGS = {torch.float32: 16 if DEVICE == "cpu" else 32, torch.float16: 4, torch.bfloat16: 4}


def with_dtypes(*axes: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Every combination of the axes with every dtype; in the interpreter, which is slow, one of 16 bits in turn."""
    cases = list(itertools.product(*axes))
    if DEVICE == "cuda":
        return [(*case, dtype) for case in cases for dtype in DTYPES]
    return [(*case, dtype) for n, case in enumerate(cases) for dtype in (torch.float32, DTYPES[1 + n % 2])]


@dataclass(frozen=True)
class Case:
    """Sizes and options of one call; small unless a test asks for more."""

    freq: int = 3
    time: int = 5
    kernel: tuple[int, int] = (1, 3)
    prefix: int = 1
    order: TokenOrder = "freq"
    batch: int = 2
    dim: int = 16
    rank: int = 5
    summands: int = 2
    bias: bool = False
    mask: bool = False
    scale: float = 1.0
    activation: str = "gelu"
    strided: bool = False

    @property
    def tokens(self) -> int:
        return self.prefix + self.freq * self.time

    def inputs(self, dtype: torch.dtype, **dtypes: torch.dtype) -> dict[str, Tensor]:
        """The tensors of the call, of one dtype but for those named; always the same numbers."""
        taps = self.kernel[0] * self.kernel[1]
        wide = (self.batch, self.tokens, self.dim)
        drawn = {
            "x": draw(wide, 1),
            "down_weight": draw((self.rank, self.dim, *self.kernel), 2) / (self.dim * taps) ** 0.5,
            "up_weight": draw((self.dim, self.rank, *self.kernel), 3) / (self.rank * taps) ** 0.5,
        }
        for number, name in enumerate(("block_out", "skip")[: self.summands]):
            drawn[name] = draw(wide, 4 + number)
        if self.bias:
            drawn |= {"down_bias": draw((self.rank,), 6), "up_bias": draw((self.dim,), 7)}
        if self.mask:
            drawn["hidden_mask"] = (draw((self.batch, self.tokens, self.rank), 8) > 0).double() * 1.25
        made = {name: tensor.to(dtypes.get(name, dtype)) for name, tensor in drawn.items()}
        if self.strided:
            made |= {name: scattered(made[name]) for name in ("x", "block_out", "skip") if name in made}
        return {name: tensor.requires_grad_(name != "hidden_mask") for name, tensor in made.items()}

    def call(self, inputs: dict[str, Tensor], backend: str) -> Tensor:
        return loaa(
            **inputs,
            freq_bins=self.freq,
            prefix_tokens=self.prefix,
            token_order=self.order,
            scale=self.scale,
            activation=self.activation,
            backend=backend,
        )


def draw(shape: tuple[int, ...], seed: int) -> Tensor:
    """Normal numbers in float64, the same on every machine."""
    generator = torch.Generator().manual_seed(zlib.crc32(repr((shape, seed)).encode()))
    return torch.randn(shape, dtype=torch.float64, generator=generator).to(DEVICE)


def scattered(tensor: Tensor) -> Tensor:
    """The same numbers [batch, tokens, dim] as a window of a wider, transposed tensor, NaN all around."""
    batch, tokens, dim = tensor.shape
    wide = tensor.new_full((batch, dim + 2, tokens + 3), torch.nan)
    window = wide.transpose(1, 2)[:, 2:-1, 1:-1]
    return window.copy_(tensor)


def results(case: Case, inputs: dict[str, Tensor], backend: str, grad: Tensor | None = None) -> dict[str, Tensor]:
    """The output and the gradient of every input that wants one, for an incoming gradient."""
    out = case.call(inputs, backend)
    wanted = {name: tensor for name, tensor in inputs.items() if isinstance(tensor, Tensor) and tensor.requires_grad}
    if grad is None:
        grad = draw(tuple(out.shape), 9).to(out.dtype)
    grads = torch.autograd.grad(out, list(wanted.values()), grad.to(out.dtype))
    return {"out": out.detach(), **dict(zip(wanted, grads, strict=True))}


def exact(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers in float64."""
    return {name: tensor.detach().double().requires_grad_(tensor.requires_grad) for name, tensor in inputs.items()}


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return ((actual.double() - expected).norm() / expected.norm().clamp_min(1e-300)).item()


def check(
    case: Case, dtype: torch.dtype, layout: Callable[[Tensor], Tensor] = torch.clone, **dtypes: torch.dtype
) -> None:
    """The kernels against the reference in float64: output and every gradient within the bound of the dtype.

    A 16-bit result may be twice as far off as the eager Conv2d formulation in that dtype on the same device, or as far
    as one rounding where that was luckier.
    """
    inputs = case.inputs(dtype, **dtypes)
    incoming = layout(draw((case.batch, case.tokens, case.dim), 9).to(dtype))
    actual = results(case, inputs, "triton", incoming)
    expected = results(case, exact(inputs), "reference", incoming)
    rounding = torch.finfo(dtype).eps / 2
    eager = results(case, inputs, "reference", incoming) if dtype != torch.float32 and not dtypes else None
    for name, want in expected.items():
        got = actual[name]
        assert got.shape == want.shape, name
        error = relative_error(got, want)
        allowed = max(rounding, 2 * relative_error(eager[name], want)) if eager else ROUNDINGS[dtype] * rounding
        assert error <= allowed, f"{name}: relative error {error:.1e}, allowed {allowed:.1e}, {case}, {dtype}"
