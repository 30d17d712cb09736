"""Merged blocks: a transformer block's own Linears, wider by an adapter's rows and columns.

An adapter is a Linear from d to taps * r columns, a shifted sum, an activation, shifted copies, and a Linear back to d.
Both Linears have partners in the block that read the same input and add to the same sum: fc1 and fc2 beside the FFN,
qkv and proj beside attention. So they are stacked into those, and only `Between` is left of the adapter.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import GELU, Attention, GELUTanh
from torch import Tensor, nn

from fastloaa.grid import TokenGrid, TokenOrder
from fastloaa.ops.activations import ACTIVATIONS
from fastloaa.ops.shifts import Offset, fold, unfold
from fastloaa.ops.tracing import exporting, transformed
from fastloaa.ops.triton_version import NO_TRITON

if NO_TRITON is None:
    import fastloaa.ops.cpu  # noqa: F401 (registers what CPU tensors get)
    from fastloaa.kernels.interpreted import INTERPRETED
    from fastloaa.kernels.widened_launch import obstacle
    from fastloaa.ops.widened import widened_activation_
else:
    INTERPRETED, obstacle, widened_activation_ = False, None, None  # type: ignore[assignment]

ALIGNMENT = 8  # columns; what tensor cores want of a matrix's width in 16 bits


@dataclass(frozen=True)
class Between:
    """What stands between the widened Linears of a site: shifted sum, activation, shifted copies.

    Args:
        rank: hidden rows of the adapter, r.
        taps: the neighbours (frequency, time) that it looks at; of these the columns are made, tap-major.
        activation: its name.
        freq_bins, prefix_tokens, token_order: the grid, see `TokenGrid`.
    """

    rank: int
    taps: tuple[Offset, ...]
    activation: str
    freq_bins: int
    prefix_tokens: int
    token_order: TokenOrder

    @property
    def columns(self) -> int:
        """taps * r."""
        return len(self.taps) * self.rank

    @property
    def width(self) -> int:
        """Columns with the zeros that pad them to a multiple of 8."""
        return -(-self.columns // ALIGNMENT) * ALIGNMENT

    @property
    def kernel(self) -> tuple[int, int] | None:
        """(frequency, time) size if the taps are those of a one-dimensional kernel, which is what Triton runs."""
        freq, time = (max(offset[axis] for offset in self.taps) for axis in (0, 1))
        every = tuple((f, t) for f in range(-freq, freq + 1) for t in range(-time, time + 1))
        return (2 * freq + 1, 2 * time + 1) if self.taps == every and min(freq, time) == 0 else None

    def __call__(self, columns: Tensor) -> Tensor:
        """[batch, tokens, width or columns] -> [batch, tokens, columns], out of place."""
        grid = TokenGrid.from_tokens(columns.shape[1], self.freq_bins, self.prefix_tokens, self.token_order)
        taps = [tap if self.token_order == "freq" else tap[::-1] for tap in self.taps]
        per_tap = columns[..., : self.columns].unflatten(2, (len(taps), self.rank))
        return unfold(ACTIVATIONS[self.activation].forward(fold(per_tap, grid, taps)), grid, taps).flatten(2)

    def in_place(self, buffer: Tensor, start: int, wide_activation: str = "") -> bool:
        """Do it on the columns from `start` on, and `wide_activation` on those before them, in one pass.

        False, with nothing done, where a gradient is wanted, a graph is being exported or a transform at work, or where
        the kernel cannot run.
        """
        if isinstance(buffer, torch.fx.Proxy) or transformed():
            return False
        wants_gradient = torch.is_grad_enabled() and buffer.requires_grad
        if self.kernel is None or wants_gradient or exporting() or not _runs(buffer, self):
            return False
        time_major = self.token_order == "time"
        widened_activation_(
            buffer, start, self.rank, *self.kernel, self.freq_bins, self.prefix_tokens, time_major,
            self.activation, wide_activation,
        )  # fmt: skip
        return True

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Between":
        return cls(**values | {"taps": tuple((f, t) for f, t in values["taps"])})


class _Widened(nn.Module):
    """A module of a block that an adapter was merged into."""

    between: Between

    def set_grid(self, grid: TokenGrid) -> None:
        """Keep to another grid, as `LoAA.set_grid`."""
        self.between = replace(
            self.between, freq_bins=grid.freq_bins, prefix_tokens=grid.prefix_tokens, token_order=grid.token_order
        )


class WidenedMlp(_Widened):
    """timm's Mlp with an adapter in its Linears: fc1 [hidden + width, dim], fc2 [dim, hidden + width]."""

    def __init__(self, fc1: nn.Linear, act: nn.Module, fc2: nn.Linear, between: Between) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2, self.between = fc1, act, fc2, between

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens, dim] -> the same: the FFN's output and the adapter's branch."""
        hidden, name = self.fc1.out_features - self.between.width, activation_name(self.act)
        buffer = self.fc1(x)
        if name is not None and self.between.in_place(buffer, hidden, name):
            return self.fc2(buffer)
        out = F.linear(self.act(buffer[..., :hidden]), self.fc2.weight[:, :hidden], self.fc2.bias)
        columns = _activate(self.between, buffer[..., hidden:])
        return _add_product(out, columns, self.fc2.weight[:, hidden : hidden + self.between.columns])


class WidenedAttention(_Widened):
    """timm's Attention with an adapter in its Linears: qkv [3 * attn_dim + width, dim], proj [dim, attn_dim + width].

    Args:
        attn: whose heads, norms and gate these are; its own qkv and proj are not looked at.
    """

    def __init__(self, attn: Attention, qkv: nn.Linear, proj: nn.Linear, between: Between) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.attn_dim = attn.num_heads, attn.head_dim, attn.attn_dim
        self.qkv, self.proj, self.between = qkv, proj, between
        self.q_norm, self.k_norm, self.norm, self.gate = attn.q_norm, attn.k_norm, attn.norm, attn.gate

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """[batch, tokens, dim] -> the same: the attention's output and the adapter's branch.

        attn_mask, is_causal: as for `torch.nn.functional.scaled_dot_product_attention`.
        """
        start, between = 3 * self.attn_dim, self.between
        buffer = self.qkv(x)
        q, k, v = buffer[..., :start].unflatten(2, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(
            self.q_norm(q), self.k_norm(k), v, attn_mask=attn_mask, is_causal=is_causal
        )
        mixed = self.norm(mixed.transpose(1, 2).flatten(2))
        if self.gate is not None:
            mixed = mixed * self.gate(x).sigmoid()
        out = F.linear(mixed, self.proj.weight[:, : self.attn_dim], self.proj.bias)
        weight = self.proj.weight[:, self.attn_dim :]
        if between.in_place(buffer, start):
            return _add_product(out, buffer[..., start:], weight)
        return _add_product(out, _activate(between, buffer[..., start:]), weight[:, : between.columns])


def activation_name(module: nn.Module) -> str | None:
    """The name among `ACTIVATIONS` of what a module computes, None if it is none of them."""
    approximate = getattr(module, "approximate", None)
    if isinstance(module, nn.GELU) and approximate in ("none", "tanh"):
        return "gelu" if approximate == "none" else "gelu_tanh"
    return {nn.ReLU: "relu", nn.SiLU: "silu", GELU: "gelu", GELUTanh: "gelu_tanh"}.get(type(module))


@torch.fx.wrap  # one node to symbolic tracing, as the next
def _activate(between: Between, columns: Tensor) -> Tensor:
    return between(columns)


@torch.fx.wrap
def _add_product(out: Tensor, columns: Tensor, weight: Tensor) -> Tensor:
    """`out + columns @ weight.T`, in out's memory where nothing forbids it."""
    if torch.is_grad_enabled() or transformed() or not out.dtype == columns.dtype == weight.dtype:
        return out + F.linear(columns, weight)
    return out.flatten(0, 1).addmm_(columns.flatten(0, 1), weight.t()).view_as(out)


def _runs(buffer: Tensor, between: Between) -> bool:
    """Whether the op takes the buffer: on CPUs it is plain PyTorch, unless Triton's interpreter stands in for a GPU."""
    if widened_activation_ is None or between.kernel is None or buffer.device.type not in ("cpu", "cuda"):
        return False
    if buffer.device.type == "cpu" and not INTERPRETED:
        return True
    return obstacle(buffer, *between.kernel, between.freq_bins, between.prefix_tokens) is None
