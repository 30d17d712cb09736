"""The parts of a transformer block in the form that exported graphs take.

What is chosen here is what onnxruntime runs fastest on CPUs: attention as one operator on [batch, tokens, dim] where
the opset has it, else as the products that runtimes fuse, wide products where `merge` made them wide, and neighbours on
the grid as an index. Slices written in place, as PyTorch has them, would come out as chains of ScatterND.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastloaa.adapters.loaa import LoAA
from fastloaa.adapters.widened import Between, WidenedAttention, WidenedMlp, rotated
from fastloaa.backbones import BlockLayout, OpenBlock
from fastloaa.backbones.parts import AttentionParts, linear_of
from fastloaa.grid import TokenGrid
from fastloaa.ops.activations import ACTIVATIONS
from fastloaa.ops.normed import NormedFrom
from fastloaa.ops.shifts import unfold


class GraphBetween(nn.Module):
    """`Between` on a fixed number of tokens: a Gather each way.

    Args:
        tokens: of the whole grid.
        width: of what comes and goes, between.columns and zeros.
        keep: compute the first `keep` tokens alone. They are prefix tokens, which have no neighbours.
    """

    neighbours: Tensor

    def __init__(self, between: Between, tokens: int, width: int, keep: int | None = None) -> None:
        super().__init__()
        self.rank, self.activation = between.rank, ACTIVATIONS[between.activation].forward
        self.padding = width - between.columns
        grid = TokenGrid.from_tokens(tokens, between.freq_bins, between.prefix_tokens, between.token_order)
        taps = [tap if between.token_order == "freq" else tap[::-1] for tap in between.taps]
        self.taps, self.centre = len(taps), taps.index((0, 0))
        # Counted from 1, so that 0, where `unfold` finds no neighbour, is a row of zeros put before the others.
        numbers = torch.arange(1, tokens + 1).view(1, tokens, 1)
        self.register_buffer("neighbours", unfold(numbers, grid, taps)[0, :keep, :, 0])  # [tokens, taps]

    def forward(self, columns: Tensor) -> Tensor:
        """[batch, tokens, width] -> the same: shifted sum, activation, shifted copies."""
        per_tap = columns.split([self.rank] * self.taps + [self.padding] * (self.padding > 0), dim=2)[: self.taps]
        total = per_tap[self.centre]
        for tap, summand in enumerate(per_tap):
            if tap != self.centre:
                total = total + _with_zero_row(summand).index_select(1, self.neighbours[:, tap].contiguous())
        copies = self.activation(total)
        if self.taps > 1:
            copies = _with_zero_row(copies).index_select(1, self.neighbours.flatten())  # [batch, tokens * taps, rank]
            copies = copies.unflatten(1, tuple(self.neighbours.shape)).flatten(2)
        return F.pad(copies, (0, self.padding)) if self.padding else copies


class GraphAttention(nn.Module):
    """Attention whose parts are known, or `WidenedAttention`, with one attention operator (two where it is
    differential) and one product for all that reads x.

    Args:
        keep: compute the first `keep` tokens alone, prefix tokens that attend to all.
        operator: attention is ONNX's operator of that name, which came with opset 23; else two products and a softmax.
    """

    def __init__(
        self,
        attn: AttentionParts | WidenedAttention,
        tokens: int,
        keep: int | None = None,
        *,
        operator: bool = True,
    ) -> None:
        super().__init__()
        self.shape, self.keep, self.operator = attn.shape, keep, operator
        self.q_norm, self.k_norm, self.norm, self.gate = attn.q_norm, attn.k_norm, attn.norm, attn.gate
        self.difference = attn.difference
        between = attn.between if isinstance(attn, WidenedAttention) else None
        self.between = between and GraphBetween(between, tokens, between.width, keep)
        self.columns = [between.width] if between else []
        self.proj = attn.proj
        if keep is None:
            self.qkv = attn.qkv
        else:
            q, k, v = self.shape.columns
            self.q = _rows(attn.qkv, [*range(q), *range(q + k + v, attn.qkv.out_features)])
            self.kv = _rows(attn.qkv, range(q, q + k + v))

    def forward(
        self, x: Tensor, attn_mask: None = None, is_causal: Literal[False] = False, rope: Tensor | None = None
    ) -> Tensor:
        """[batch, tokens, dim] -> [batch, tokens or keep, dim]. timm's blocks pass a mask, which no model here has."""
        kept, sizes = x[:, : self.keep], self.shape.columns
        if self.keep is None:
            q, k, v, *columns = self.qkv(x).split([*sizes, *self.columns], dim=2)
        else:
            q, *columns = self.q(kept).split([sizes[0], *self.columns], dim=2)
            k, v = self.kv(x).split(sizes[1:], dim=2)
        q, k = self._per_head(self.q_norm, q), self._per_head(self.k_norm, k)
        if rope is not None:
            q = q if self.keep is not None else self._rotated(q, rope)  # prefix tokens have no place to be rotated to
            k = self._rotated(k, rope)
        mixed = self.norm(self._mixed(q, k, v))
        if self.gate is not None:
            mixed = mixed * self.gate(kept).sigmoid()
        if self.between is not None:
            mixed = torch.cat((mixed, self.between(columns[0])), dim=2)
        return self.proj(mixed)

    def _mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Values by the attention of queries to keys, all [batch, tokens, heads * width]."""
        heads, kv_heads = self.shape.heads, self.shape.kv_heads
        if self.difference is None and self.operator:
            return torch.onnx.ops.attention(q, k, v, q_num_heads=heads, kv_num_heads=kv_heads)[0]
        values = v.unflatten(2, (-1, self.shape.value_width)).transpose(1, 2)
        if self.difference is None:
            q, k = (x.unflatten(2, (-1, self.shape.width)).transpose(1, 2) for x in (q, k))
            if kv_heads != heads:
                k, values = (x.repeat_interleave(heads // kv_heads, dim=1) for x in (k, values))
            mixed = _products(q, k, values)
        else:
            # Not torch.onnx.ops.attention, which gives values the width of queries.
            attention = F.scaled_dot_product_attention if self.operator else _products
            halves = zip(self._halves(q), self._halves(k), strict=True)
            mixed = self.difference(*(attention(q, k, values) for q, k in halves))
        return mixed.transpose(1, 2).flatten(2)

    def _per_head(self, norm: nn.Module, x: Tensor) -> Tensor:
        """A norm over each head's channels, [batch, tokens, heads * width] -> the same."""
        if isinstance(norm, nn.Identity):
            return x
        return norm(x.unflatten(2, (-1, self.shape.width))).flatten(2)

    def _rotated(self, x: Tensor, rope: Tensor) -> Tensor:
        """[batch, tokens, heads * width] -> the same, with patches rotated to their places."""
        per_head = x.unflatten(2, (-1, self.shape.width)).transpose(1, 2)
        return rotated(per_head, rope, self.shape).type_as(x).transpose(1, 2).flatten(2)

    def _halves(self, x: Tensor) -> tuple[Tensor, ...]:
        """[batch, tokens, 2 * heads * width] -> two of [batch, heads, tokens, width]: the first and second of each
        pair."""
        return tuple(half.transpose(1, 2) for half in x.unflatten(2, (-1, 2, self.shape.width)).unbind(3))


def _products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention, all [batch, heads, tokens, width], in the shape that runtimes know.

    TensorRT fuses it with the scale on the queries, where float16 also keeps its range; onnxruntime takes the scale
    into the product.
    """
    return (q * q.shape[3] ** -0.5 @ k.transpose(2, 3)).softmax(3) @ v


class GraphMlp(nn.Module):
    """`WidenedMlp` as it is merged: two products, with activation, gate, norm and shifts between them."""

    def __init__(self, mlp: WidenedMlp, tokens: int, keep: int | None = None) -> None:
        super().__init__()
        self.mlp = mlp
        width = mlp.between.width
        self.sizes = (mlp.fc1.out_features - width, width)
        self.between = GraphBetween(mlp.between, tokens, width, keep)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens, dim] -> the same."""
        wide, columns = self.mlp.fc1(x).split(self.sizes, dim=2)
        # The wider rows also spare fc2 a stride of 4 * 3072 bytes, at which rows evict each other from the cache.
        return self.mlp.fc2(torch.cat((self.mlp.hidden(wide), self.between(columns)), dim=2))


class GraphLoAA(nn.Module):
    """`LoAA` beside its block: one product each way and shifted sums between them."""

    def __init__(self, adapter: LoAA, tokens: int, keep: int | None = None) -> None:
        super().__init__()
        rank, _, kf, kt = adapter.down.weight.shape
        between = Between(
            rank=rank,
            taps=tuple((f - kf // 2, t - kt // 2) for f in range(kf) for t in range(kt)),
            activation=adapter.activation,
            freq_bins=adapter.freq_bins,
            prefix_tokens=adapter.prefix_tokens,
            token_order=adapter.token_order,
        )
        self.between = GraphBetween(between, tokens, between.columns, keep)
        self.down = nn.Parameter(adapter.down.weight.permute(2, 3, 0, 1).flatten(0, 2).contiguous())
        self.up = nn.Parameter((adapter.scale * adapter.up.weight).permute(0, 2, 3, 1).flatten(1).contiguous())
        self.down_bias = self.up_bias = None
        if adapter.down.bias is not None:  # on the centre tap: every token has one
            bias = F.pad(adapter.down.bias, (self.between.centre * rank, (kf * kt - 1 - self.between.centre) * rank))
            self.down_bias = nn.Parameter(bias)
        if adapter.up.bias is not None:
            self.up_bias = nn.Parameter(adapter.scale * adapter.up.bias)

    def forward(self, x: Tensor, block_out: Tensor, skip: Tensor, normed_from: NormedFrom | None = None) -> Tensor:
        """All [batch, tokens, dim]; the branch and its summands, as `LoAA.forward`."""
        columns = F.linear(x, self.down, self.down_bias)
        return skip + (block_out + F.linear(self.between(columns), self.up, self.up_bias))


class ReadOutBlock(OpenBlock):
    """The last block, for the tokens alone that the head reads.

    Keys and values come from all tokens; everything else of the others would be thrown away: on 12 blocks, a
    fourteenth of the arithmetic.

    Args:
        block: plain, or an `AdaptedBlock`.
        attn: the parts of its attention.
        keep: how many tokens, counted from the first; all are prefix tokens.
        operator: see `GraphAttention`.
    """

    def __init__(
        self,
        block: nn.Module,
        layout: BlockLayout,
        attn: AttentionParts | WidenedAttention,
        tokens: int,
        keep: int,
        operator: bool = True,
    ) -> None:
        super().__init__(block, layout)
        self.keep, self.normed_input = keep, getattr(block, "normed_input", True)
        setattr(self, layout.attn, GraphAttention(attn, tokens, keep, operator=operator))
        mlp = getattr(block, layout.mlp)
        if isinstance(mlp, WidenedMlp):
            setattr(self, layout.mlp, GraphMlp(mlp, tokens, keep))
        adapters = [getattr(block, name, None) for name in ("loaa_attn", "loaa_ffn")]
        self.loaa_attn, self.loaa_ffn = (None if a is None else GraphLoAA(a, tokens, keep) for a in adapters)

    def forward(self, x: Tensor, **attention: Any) -> Tensor:
        """[batch, tokens, dim] -> [batch, keep, dim]."""
        normed, x = self.norm_attn(x), x[:, : self.keep]
        x = self._sum(self.loaa_attn, normed[:, : self.keep], self.attention_out(normed, **attention), x)
        normed = self.norm_ffn(x)
        return self._sum(self.loaa_ffn, normed, self.ffn_out(normed), x)

    def _sum(self, adapter: GraphLoAA | None, normed: Tensor, out: Tensor, x: Tensor) -> Tensor:
        return x + out if adapter is None else adapter(normed if self.normed_input else x, out, x)


def _with_zero_row(x: Tensor) -> Tensor:
    """[batch, tokens, c] -> [batch, 1 + tokens, c]."""
    return F.pad(x, (0, 0, 1, 0))


def _rows(linear: nn.Linear, rows: Sequence[int]) -> nn.Linear:
    """Some outputs of a Linear."""
    return linear_of(linear.weight[list(rows)], None if linear.bias is None else linear.bias[list(rows)])
