"""Merged blocks: a transformer block's own Linears, wider by an adapter's rows and columns.

An adapter is a Linear from d to taps * r columns, a shifted sum, an activation, shifted copies, and a Linear back to d.
Both Linears have partners in the block that read the same input and add to the same sum: fc1 and fc2 beside the FFN,
qkv and proj beside attention. So they are stacked into those, and only `Between` is left of the adapter.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import GELU, GELUTanh, apply_rot_embed_cat
from torch import Tensor, nn

from fastloaa.backbones.parts import AttentionParts, FfnParts, HeadShape
from fastloaa.grid import TokenGrid, TokenOrder
from fastloaa.ops.activations import ACTIVATIONS
from fastloaa.ops.shifts import Offset, fold, unfold
from fastloaa.ops.tracing import exporting, hooked, transformed
from fastloaa.ops.triton_version import NO_TRITON, NOT_COMPILED

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
        if self.kernel is None or wants_gradient or exporting() or not _runs(buffer, self, wide_activation):
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
    """An FFN with an adapter in its Linears: fc1 [hidden + width, dim], fc2 [dim, hidden + width].

    With a gate, fc1 has 2 * hidden + width rows: the adapter's stand beside the gate's, and nothing of theirs goes
    through it, nor through the FFN's norm.

    Args:
        ffn: whose activation, norm and gate these are; its own Linears are not looked at.
    """

    def __init__(self, ffn: FfnParts, fc1: nn.Linear, fc2: nn.Linear, between: Between) -> None:
        super().__init__()
        self.fc1, self.act, self.norm, self.fc2, self.between = fc1, ffn.act, ffn.norm, fc2, between
        self.gate = ffn.gate

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens, dim] -> the same: the FFN's output and the adapter's branch."""
        start, hidden = self.fc1.out_features - self.between.width, self.fc2.in_features - self.between.width
        is_plain = self.gate is None and isinstance(self.norm, nn.Identity)
        name = activation_name(self.act) if is_plain else None
        buffer = self.fc1(x)
        if name is not None and self.between.in_place(buffer, start, name):
            return self.fc2(buffer)
        out = F.linear(self.hidden(buffer[..., :start]), self.fc2.weight[:, :hidden], self.fc2.bias)
        return _add_branch(self.between, out, buffer, start, self.fc2.weight[:, hidden:])

    def hidden(self, columns: Tensor) -> Tensor:
        """The block's own columns of fc1 -> what its columns of fc2 read."""
        if self.gate is None:
            return self.norm(self.act(columns))
        first, last = columns.chunk(2, dim=-1)
        return self.norm(self.act(first) * last if self.gate == "first" else first * self.act(last))


class WidenedAttention(_Widened):
    """Attention with an adapter in its Linears: qkv [q + k + v + width, dim], proj [dim, out + width].

    Args:
        attn: whose heads, norms and gate these are; its own qkv and proj are not looked at.
    """

    def __init__(self, attn: AttentionParts, qkv: nn.Linear, proj: nn.Linear, between: Between) -> None:
        super().__init__()
        self.shape, self.qkv, self.proj, self.between = attn.shape, qkv, proj, between
        self.q_norm, self.k_norm, self.norm, self.gate = attn.q_norm, attn.k_norm, attn.norm, attn.gate
        self.difference = attn.difference

    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False, rope: Tensor | None = None
    ) -> Tensor:
        """[batch, tokens, dim] -> the same: the attention's output and the adapter's branch.

        attn_mask, is_causal: as for `torch.nn.functional.scaled_dot_product_attention`; rope: as for timm's Eva.
        """
        start = sum(self.shape.columns)
        buffer = self.qkv(x)
        q, k, v = queries_keys_values(self, buffer[..., :start], rope)
        mask: dict[str, Any] = {"attn_mask": attn_mask, "is_causal": is_causal}
        if self.difference is not None:
            halves = zip(q.unflatten(1, (-1, 2)).unbind(2), k.unflatten(1, (-1, 2)).unbind(2), strict=True)
            mixed = self.difference(*(F.scaled_dot_product_attention(*half, v, **mask) for half in halves))
        else:
            grouped: dict[str, Any] = {"enable_gqa": True} if self.shape.kv_heads != self.shape.heads else {}
            mixed = F.scaled_dot_product_attention(q, k, v, **mask, **grouped)
        mixed = self.norm(mixed.transpose(1, 2).flatten(2))
        if self.gate is not None:
            mixed = mixed * self.gate(x).sigmoid()
        out = F.linear(mixed, self.proj.weight[:, : self.shape.out], self.proj.bias)
        return _add_branch(self.between, out, buffer, start, self.proj.weight[:, self.shape.out :])


def queries_keys_values(
    attn: AttentionParts | WidenedAttention, columns: Tensor, rope: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Three of [batch, heads, tokens, head width], as they go into the product: normed and rotated.

    Args:
        columns: [batch, tokens, q + k + v], what qkv returns.
        rope: the positions that timm's Eva gives its blocks, sine and cosine [patches, 2 * head width].
    """
    shape = attn.shape
    q, k, v = columns.split(shape.columns, dim=2)
    q, k = (part.unflatten(2, (-1, shape.width)).transpose(1, 2) for part in (q, k))
    v = v.unflatten(2, (-1, shape.value_width)).transpose(1, 2)
    q, k = attn.q_norm(q), attn.k_norm(k)
    if rope is not None:
        q, k = (rotated(part, rope, shape).type_as(v) for part in (q, k))
    return q, k, v


def rotated(x: Tensor, rope: Tensor, shape: HeadShape) -> Tensor:
    """Queries or keys [batch, heads, tokens, width] with those of patches rotated to their places."""
    prefix = shape.rotary_prefix or 0
    patches = apply_rot_embed_cat(x[:, :, prefix:], rope, half=shape.rotate_half)
    return torch.cat((x[:, :, :prefix], patches), dim=2)


def activation_name(module: nn.Module) -> str | None:
    """The name among `ACTIVATIONS` of what a module computes, None if it is none of them."""
    if hooked(module):
        return None
    approximate = getattr(module, "approximate", None)
    if type(module) is nn.GELU and approximate in ("none", "tanh"):
        return "gelu" if approximate == "none" else "gelu_tanh"
    if type(module) in (GELU, GELUTanh):  # timm's own
        return "gelu" if type(module) is GELU else "gelu_tanh"
    return next((name for name, activation in ACTIVATIONS.items() if type(module) in activation.modules), None)


@torch.fx.wrap  # one node to symbolic tracing, as the next
def _activate(between: Between, columns: Tensor) -> Tensor:
    return between(columns)


def _add_branch(between: Between, out: Tensor, buffer: Tensor, start: int, weight: Tensor) -> Tensor:
    """`out` and the adapter's branch, from the columns of `buffer` from `start` on and its weights [dim, width]."""
    if between.in_place(buffer, start):
        return _add_product(out, buffer[..., start:], weight)
    return _add_product(out, _activate(between, buffer[..., start:]), weight[:, : between.columns])


@torch.fx.wrap
def _add_product(out: Tensor, columns: Tensor, weight: Tensor) -> Tensor:
    """`out + columns @ weight.T`, in out's memory where nothing forbids it."""
    if torch.is_grad_enabled() or transformed() or not out.dtype == columns.dtype == weight.dtype:
        return out + F.linear(columns, weight)
    return out.flatten(0, 1).addmm_(columns.flatten(0, 1), weight.t()).view_as(out)


def _runs(buffer: Tensor, between: Between, wide_activation: str) -> bool:
    """Whether the op takes the buffer: on CPUs it is plain PyTorch, unless Triton's interpreter stands in for a GPU."""
    if widened_activation_ is None or between.kernel is None or buffer.device.type not in ("cpu", "cuda"):
        return False
    if buffer.device.type == "cpu" and not INTERPRETED:
        return True
    if buffer.device.type == "cuda" and NOT_COMPILED is not None:
        return False
    activations = (between.activation, wide_activation)
    return obstacle(buffer, *between.kernel, between.freq_bins, between.prefix_tokens, activations) is None
