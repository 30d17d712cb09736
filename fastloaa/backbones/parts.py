"""Where attention and FFN have their Linears, so that an adapter can be merged into them and graphs be written.

Another attention or FFN is added where it is defined: `@attention_parts.register(MyAttention)` over a function that
returns its `AttentionParts`, or None if this one has something that they do not say; `ffn_parts` alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import torch
from timm.layers import Attention, AttentionRope, DiffAttention, GluMlp, Mlp, SwiGLU
from timm.models.eva import EvaAttention
from torch import Tensor, nn

from fastloaa.ops.tracing import hooked


@dataclass(frozen=True)
class HeadShape:
    """How the columns of a qkv product divide into heads, and what happens to queries and keys.

    Args:
        heads, kv_heads: of queries, and of keys and values; these serve heads / kv_heads queries each.
        width: columns of a query's or key's head.
        value_width: columns of a value's head.
        rotary_prefix: tokens before the patches, which rotary positions leave alone; None: there are no such positions.
        rotate_half: a head's pairs that rotate are its halves, not its neighbours.
        differential: heads are in pairs, and the second attention map of a pair is subtracted from the first.
    """

    heads: int
    width: int
    kv_heads: int
    value_width: int
    rotary_prefix: int | None = None
    rotate_half: bool = False
    differential: bool = False

    @property
    def columns(self) -> tuple[int, int, int]:
        """Columns of queries, keys and values."""
        value_heads = self.kv_heads // 2 if self.differential else self.kv_heads
        return self.heads * self.width, self.kv_heads * self.width, value_heads * self.value_width

    @property
    def out(self) -> int:
        """Columns of what the heads return together."""
        return (self.heads // 2 if self.differential else self.heads) * self.value_width


class Difference(nn.Module):
    """What differential attention does with the two halves of its heads (timm's DiffAttention, whose lambda is fixed).

    Args:
        attn: a DiffAttention; its lambdas are taken as they are now.
    """

    factor: Tensor

    def __init__(self, attn: DiffAttention) -> None:
        super().__init__()
        with torch.no_grad():
            self.register_buffer("factor", attn._compute_lambda().to(attn.qkv.weight.dtype).clone())
        self.gain, self.norm = 1 - attn.lambda_init, attn.sub_norm

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two of [..., value_width] -> the same."""
        return self.norm(first - self.factor * second) * self.gain


@dataclass
class AttentionParts:
    """Self-attention: proj(norm(heads(qkv(x))) * sigmoid(gate(x))), in evaluation.

    Args:
        qkv: [q + k + v, dim], with all their biases.
        proj: [dim, shape.out].
        q_norm, k_norm: over the columns of a head.
        norm, gate: over all columns; None for no gate.
        difference: of differential attention.
    """

    shape: HeadShape
    qkv: nn.Linear
    proj: nn.Linear
    q_norm: nn.Module = field(default_factory=nn.Identity)
    k_norm: nn.Module = field(default_factory=nn.Identity)
    norm: nn.Module = field(default_factory=nn.Identity)
    gate: nn.Module | None = None
    difference: Difference | None = None

    @property
    def is_linear(self) -> bool:
        """Whether qkv and proj are what their weights say; LoRA's are more."""
        return are_linears(self.qkv, self.proj)


@dataclass
class FfnParts:
    """An FFN: fc2(norm(act(fc1(x)))), or with a gate fc2(norm(act(g) * h)) for the two halves of fc1's columns.

    Args:
        fc1: [hidden, dim], or [2 * hidden, dim] with a gate.
        gate: which half goes through the activation.
    """

    fc1: nn.Linear
    act: nn.Module
    fc2: nn.Linear
    norm: nn.Module = field(default_factory=nn.Identity)
    gate: Literal["first", "last"] | None = None

    @property
    def is_linear(self) -> bool:
        """Whether fc1 and fc2 are what their weights say."""
        return are_linears(self.fc1, self.fc2)


PartsT = TypeVar("PartsT")
Reader = Callable[[Any], PartsT | None]


class PartsByClass(Generic[PartsT]):
    """Call it with a module for the module's parts: None for a class that is not known, and for a subclass or an object
    of a known one that has a `forward` of its own."""

    def __init__(self) -> None:
        self._readers: dict[type[nn.Module], Reader[PartsT]] = {}

    def register(self, kind: type[nn.Module]) -> Callable[[Reader[PartsT]], Reader[PartsT]]:
        """Decorates the function that reads the parts of modules of that class."""

        def add(reader: Reader[PartsT]) -> Reader[PartsT]:
            self._readers[kind] = reader
            return reader

        return add

    def __call__(self, module: nn.Module) -> PartsT | None:
        kind = next((kind for kind in type(module).__mro__ if kind in self._readers), None)
        if kind is None or type(module).forward is not kind.forward or "forward" in vars(module):
            return None
        return self._readers[kind](module)


attention_parts: PartsByClass[AttentionParts] = PartsByClass()
ffn_parts: PartsByClass[FfnParts] = PartsByClass()


@attention_parts.register(Attention)
def _(attn: Attention) -> AttentionParts:
    shape = HeadShape(attn.num_heads, attn.head_dim, attn.num_heads, attn.head_dim)
    return AttentionParts(shape, attn.qkv, attn.proj, attn.q_norm, attn.k_norm, attn.norm, _gate(attn))


@attention_parts.register(EvaAttention)
def _(attn: EvaAttention) -> AttentionParts | None:
    return _rotary(attn, (attn.q_bias, attn.k_bias, attn.v_bias))


@attention_parts.register(AttentionRope)
def _(attn: AttentionRope) -> AttentionParts | None:
    return _rotary(attn, (None, None, None))


@attention_parts.register(DiffAttention)
def _(attn: DiffAttention) -> AttentionParts:
    heads, width = 2 * attn.num_heads, attn.head_dim
    shape = HeadShape(heads, width, heads, 2 * width, differential=True)
    return AttentionParts(
        shape, attn.qkv, attn.proj, attn.q_norm, attn.k_norm, attn.norm, None, difference=Difference(attn)
    )


def _gate(attn: Any) -> nn.Module | None:
    """That of timm's attentions, which had none before 1.0.28."""
    return getattr(attn, "gate", None)


def _rotary(attn: Any, biases: Sequence[Tensor | None]) -> AttentionParts | None:
    """Of timm's attentions that are given rotary positions; the biases are those beside a fused qkv."""
    linears = [attn.q_proj, attn.k_proj, attn.v_proj] if attn.qkv is None else [attn.qkv]
    if not are_linears(*linears):
        return None
    heads, kv_heads = attn.num_heads, getattr(attn, "num_kv_heads", attn.num_heads)
    width = attn.proj.in_features // heads  # EvaAttention has a head_dim only in later versions
    shape = HeadShape(heads, width, kv_heads, width, attn.num_prefix_tokens, bool(attn.rotate_half))
    qkv = stacked(linears)
    if biases[0] is not None:
        own = torch.cat([bias.detach() for bias in biases if bias is not None])
        qkv = linear_of(qkv.weight.detach(), own if qkv.bias is None else own + qkv.bias.detach())
    return AttentionParts(shape, qkv, attn.proj, attn.q_norm, attn.k_norm, attn.norm, _gate(attn))


@ffn_parts.register(Mlp)
def _(mlp: Mlp) -> FfnParts:
    return FfnParts(mlp.fc1, mlp.act, mlp.fc2, mlp.norm)


@ffn_parts.register(GluMlp)
def _(mlp: GluMlp) -> FfnParts:
    return FfnParts(mlp.fc1, mlp.act, mlp.fc2, mlp.norm, "last" if mlp.gate_last else "first")


@ffn_parts.register(SwiGLU)
def _(mlp: SwiGLU) -> FfnParts | None:
    if not are_linears(mlp.fc1_g, mlp.fc1_x):
        return None
    return FfnParts(stacked([mlp.fc1_g, mlp.fc1_x]), mlp.act, mlp.fc2, mlp.norm, "first")


def are_linears(*modules: Any) -> bool:
    """Whether these are Linears and just that: others, such as LoRA's, are more than their weights, as are hooks."""
    return all(type(module) is nn.Linear and not hooked(module) for module in modules)


def stacked(linears: Sequence[nn.Linear]) -> nn.Linear:
    """One Linear with the outputs of several on the same input; of one alone that one itself."""
    if len(linears) == 1:
        return linears[0]
    biases = [
        linear.weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias for linear in linears
    ]
    has_bias = any(linear.bias is not None for linear in linears)
    weight = torch.cat([linear.weight.detach() for linear in linears])
    return linear_of(weight, torch.cat([bias.detach() for bias in biases]) if has_bias else None)


def linear_of(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A Linear around weights that are there."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    linear.weight = nn.Parameter(weight)
    if bias is not None:
        linear.bias = nn.Parameter(bias)
    return linear
