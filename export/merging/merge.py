"""`merge`: adapters dissolved into the backbone's own Linears, exactly.

A (1, k) adapter cannot become weights of an unmodified ViT: a Linear does not mix tokens, and an activation sits
between the two projections. Widening is exact: fc1 gains the adapter's down-projection as rows and fc2 its
up-projection as columns (beside attention qkv and proj), with a shifted sum, activation and shifted copies of the few
extra columns between them (`fastloaa.adapters.widened`).
"""

import copy
from typing import Any, TypeVar

import torch
from timm.layers import LayerScale, Mlp
from torch import Tensor, nn

import fastloaa
from fastloaa.adapters.files import backbone_fingerprint
from fastloaa.adapters.follow import follow_grid, set_grid
from fastloaa.adapters.loaa import LoAA
from fastloaa.adapters.record import adapt_config, note, record_of
from fastloaa.adapters.widened import Between, WidenedAttention, WidenedMlp, activation_name
from fastloaa.backbones import AdaptedBlock, backbone_of
from fastloaa.backbones.blocks import Branch
from fastloaa.backbones.parts import attention_parts, ffn_parts, linear_of
from fastloaa.errors import ArgumentTypeError, FastloaaError
from fastloaa.export.sharing import sharing_copy, unshare
from fastloaa.ops.tracing import hooked

ModelT = TypeVar("ModelT", bound=nn.Module)


class MergeError(FastloaaError, ValueError):
    """Adapters that cannot be merged exactly."""


def merge(model: ModelT) -> ModelT:
    """A new model with the same outputs and no adapters: their weights stand in the blocks' own, widened Linears.

    For inference: the result is in evaluation mode and frozen. Biases, scales and LayerScale are folded in; widths are
    padded with zeros to multiples of 8. Where all adapters are linear (1, 1) and beside the FFN, with the FFN's own
    activation, every block is a plain timm block with a wider MLP, and the state dict loads into
    `timm.create_model(..., mlp_ratio=fc1.out_features / embed_dim)`.

    Args:
        model: an adapted `AST`, timm VisionTransformer or Eva, or a model of your own whose attention and FFN are known
            (`fastloaa.backbones.parts`). It is left as it is. Other kernels at one site than the config's, or several
            adapters summed by `fastloaa.concat`, are merged as they stand.

    Returns:
        A model of the same class; `merged_from(result)` says what it was made from.

    Raises:
        MergeError: no adapters, adapters on the un-normed input of their block, weights of two dtypes in one block, a
            kind of attention or FFN whose Linears are not known, or hooks and other forwards on these.
        TypeError: another kind of model.

    Examples:
        >>> import torch
        >>> from fastloaa import AST, adapt
        >>> from fastloaa.export import merge
        >>> model = AST(5, frames=64, backbone_options={"depth": 1, "embed_dim": 48, "num_heads": 3})
        >>> model = adapt(model, bottleneck=4)
        >>> plain, x = merge(model), torch.randn(1, 64, 128)
        >>> torch.testing.assert_close(plain(x), model.eval()(x))
    """
    backbone = backbone_of(model)
    if backbone.not_merged is not None:
        raise ArgumentTypeError(f"{backbone.kind} is not merged as it is; {backbone.not_merged}")
    model = backbone.model  # type: ignore[assignment]
    config = adapt_config(model)
    if config is None:
        raise MergeError("the model has no adapters to merge; adapt(model, ...) or load_adapter(model, path) adds them")
    set_grid(model, backbone.grid)
    origin = {
        "adapt": config.to_json(),
        "backbone": backbone_fingerprint(model),
        "fastloaa": fastloaa.__version__,
    }
    blocks = [_merged_block(index, block) for index, block in enumerate(backbone.blocks)]
    # To deepcopy the blocks are copied already: into these.
    container = type(backbone.blocks)
    holder = container(*blocks) if issubclass(container, nn.Sequential) else container(blocks)
    merged = copy.deepcopy(model, {id(backbone.blocks): holder})
    unshare(merged, model)
    follow_grid(backbone_of(merged))
    note(merged, adapted=None, merged_from=origin)
    return merged.requires_grad_(False).eval()


def merged_from(model: nn.Module) -> dict[str, Any] | None:
    """What `merge` made a model from, None for other models.

    "adapt": the adapters' configuration; "backbone": the fingerprint of the frozen weights that they were trained
    beside, as in adapter files; "fastloaa": the version that merged them.

    Examples:
        >>> from fastloaa import AST, adapt
        >>> from fastloaa.export import merge, merged_from
        >>> model = AST(5, frames=64, backbone_options={"depth": 1, "embed_dim": 48, "num_heads": 3})
        >>> model = adapt(model, bottleneck=4)
        >>> merged_from(merge(model))["adapt"]["bottleneck"]
        4
        >>> merged_from(model) is None
        True
    """
    return record_of(model).merged_from


def _merged_block(index: int, block: nn.Module) -> nn.Module:
    """A block of the class that was adapted with an adapted block's weights; what is not widened shares its memory."""
    if not isinstance(block, AdaptedBlock):
        raise MergeError(f"block {index} is a {type(block).__name__}; expected one that adapt() made")
    if not block.normed_input:
        raise MergeError(
            f"the adapters of block {index} read their block's un-normed input, its Linears the normed one, and a "
            f"LayerNorm is no Linear; only adapters made with normed_input=True can be merged"
        )
    loaa_attn, loaa_ffn = (_adapter(index, branch) for branch in (block.loaa_attn, block.loaa_ffn))
    block, layout = sharing_copy(block), block.layout
    if loaa_attn is not None:
        scale = take_scale(block, layout.scale1)
        setattr(block, layout.attn, _widen_attention(index, getattr(block, layout.attn), scale, loaa_attn))
    if loaa_ffn is not None:
        scale = take_scale(block, layout.scale2)
        setattr(block, layout.mlp, _widen_mlp(index, getattr(block, layout.mlp), scale, loaa_ffn))
    return block.closed()


def _adapter(index: int, branch: Branch | None) -> LoAA | None:
    """What stands beside a part of a block, if it is a LoAA and does what LoAA does."""
    if branch is None:
        return None
    if not isinstance(branch, LoAA) or type(branch).forward is not LoAA.forward or hooked(branch):
        raise MergeError(
            f"beside block {index} stands a {type(branch).__name__} with a forward or hooks of its own; only what LoAA "
            f"itself computes is merged: remove the hooks, or put the adapter in its place"
        )
    return branch


def take_scale(block: nn.Module, name: str | None) -> Tensor | None:
    """The LayerScale of that name, a submodule or a parameter, [dim]; the block goes on without it."""
    scale = None if name is None else getattr(block, name)
    if isinstance(scale, LayerScale):
        setattr(block, name, nn.Identity())  # type: ignore[arg-type]
        return scale.gamma.detach()
    if isinstance(scale, nn.Parameter):
        setattr(block, name, None)  # type: ignore[arg-type]
        return scale.detach()
    if scale is not None and not isinstance(scale, nn.Identity):
        raise MergeError(f"{name} is a {type(scale).__name__}; expected a LayerScale of timm's, or a parameter [dim]")
    return None


def _widen_attention(index: int, attn: nn.Module, scale: Tensor | None, adapter: LoAA) -> WidenedAttention:
    parts = attention_parts(attn)
    if parts is None or not parts.is_linear or hooked(attn):
        raise MergeError(
            f"block {index} has a {type(attn).__name__}; adapters merge into attention whose Linears are known "
            f"(fastloaa.backbones.parts.attention_parts), without hooks or another forward on it or them"
        )
    between, inner, outer = _parts(index, adapter, parts.proj)
    qkv, proj = _more_rows(parts.qkv, *inner), _more_columns(_scaled(parts.proj, scale), *outer)
    return WidenedAttention(parts, qkv, proj, between)


def _widen_mlp(index: int, mlp: nn.Module, scale: Tensor | None, adapter: LoAA) -> nn.Module:
    parts = ffn_parts(mlp)
    if parts is None or not parts.is_linear or hooked(mlp):
        raise MergeError(
            f"block {index} has a {type(mlp).__name__}; adapters merge into FFNs whose Linears are known "
            f"(fastloaa.backbones.parts.ffn_parts), without hooks or another forward on it or them"
        )
    between, inner, outer = _parts(index, adapter, parts.fc2)
    fc1, fc2 = _more_rows(parts.fc1, *inner), _more_columns(_scaled(parts.fc2, scale), *outer)
    is_plain = type(mlp) is Mlp and isinstance(mlp.norm, nn.Identity)
    if is_plain and between.columns == between.rank and activation_name(parts.act) == between.activation:
        mlp.fc1, mlp.fc2 = fc1, fc2  # one tap, the same activation: only wider
        return mlp
    return WidenedMlp(parts, fc1, fc2, between)


Extra = tuple[Tensor, Tensor | None]


def _parts(index: int, adapter: LoAA, like: nn.Linear) -> tuple[Between, Extra, Extra]:
    """What an adapter becomes: (between, (rows [width, dim], bias [width]), (columns [dim, width], bias [dim]))."""
    down, up = adapter.down.weight.detach(), adapter.up.weight.detach()
    if down.dtype != like.weight.dtype:
        raise MergeError(
            f"block {index} has weights in {like.weight.dtype} and its adapter in {down.dtype}; "
            f"bring both to one dtype first: model.float()"
        )
    rank, dim, kf, kt = down.shape
    # Taps without weights, as `concat` makes of unlike kernels, would be columns of zeros.
    used = [
        (f, t)
        for f in range(kf)
        for t in range(kt)
        if (f, t) == (kf // 2, kt // 2) or down[:, :, f, t].any() or up[:, :, f, t].any()
    ]
    between = Between(
        rank=rank,
        taps=tuple((f - kf // 2, t - kt // 2) for f, t in used),
        activation=adapter.activation,
        freq_bins=adapter.freq_bins,
        prefix_tokens=adapter.prefix_tokens,
        token_order=adapter.token_order,
    )
    rows, columns = down.new_zeros(between.width, dim), up.new_zeros(dim, between.width)
    rows[: between.columns] = torch.cat([down[:, :, f, t] for f, t in used])
    columns[:, : between.columns] = adapter.scale * torch.cat([up[:, :, f, t] for f, t in used], dim=1)
    row_bias = None
    if adapter.down.bias is not None:
        # The centre tap alone carries it: every token has a centre, whatever else lies beyond the grid's edge.
        row_bias = down.new_zeros(between.width)
        start = used.index((kf // 2, kt // 2)) * rank
        row_bias[start : start + rank] = adapter.down.bias.detach()
    column_bias = None if adapter.up.bias is None else adapter.scale * adapter.up.bias.detach()
    return between, (rows, row_bias), (columns, column_bias)


def _more_rows(linear: nn.Linear, rows: Tensor, bias: Tensor | None) -> nn.Linear:
    """A Linear with further outputs."""
    if bias is not None or linear.bias is not None:
        own = rows.new_zeros(linear.out_features) if linear.bias is None else linear.bias.detach()
        bias = torch.cat((own, rows.new_zeros(len(rows)) if bias is None else bias))
    return linear_of(torch.cat((linear.weight.detach(), rows)), bias)


def _more_columns(linear: nn.Linear, columns: Tensor, bias: Tensor | None) -> nn.Linear:
    """A Linear with further inputs, and a bias on top."""
    biases = [b.detach() for b in (linear.bias, bias) if b is not None]
    weight = torch.cat((linear.weight.detach(), columns), dim=1)
    return linear_of(weight, torch.stack(biases).sum(0) if biases else None)


def _scaled(linear: nn.Linear, gamma: Tensor | None) -> nn.Linear:
    """A Linear with the LayerScale after it folded in: the adapter's branch does not pass through it."""
    if gamma is None:
        return linear
    bias = None if linear.bias is None else gamma * linear.bias.detach()
    return linear_of(gamma[:, None] * linear.weight.detach(), bias)
