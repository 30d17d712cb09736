"""`merge`: adapters dissolved into the backbone's own Linears, exactly.

A (1, k) adapter cannot become weights of an unmodified ViT: a Linear does not mix tokens, and an activation sits
between the two projections. Widening is exact: fc1 gains the adapter's down-projection as rows and fc2 its
up-projection as columns (beside attention qkv and proj), with a shifted sum, activation and shifted copies of the few
extra columns between them (`fastloaa.widened`).
"""

import copy
from typing import Any, TypeVar

import torch
from timm.layers import Attention, LayerScale, Mlp
from timm.models.vision_transformer import Block
from torch import Tensor, nn

import fastloaa
from fastloaa.adapt import AdaptedBlock, adapt_config, token_grid, vision_transformer
from fastloaa.adapter import LoAA
from fastloaa.adapter_file import backbone_fingerprint
from fastloaa.errors import FastloaaError
from fastloaa.follow import follow_grid, set_grid
from fastloaa.widened import Between, WidenedAttention, WidenedMlp, activation_name

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
        model: an adapted `AST` or timm VisionTransformer. It is left as it is. Other kernels at one site than the
            config's, or several adapters summed by `fastloaa.concat`, are merged as they stand.

    Returns:
        A model of the same class; `merged_from(result)` says what it was made from.

    Raises:
        MergeError: no adapters, adapters on the un-normed input of their block, weights of two dtypes in one block, or
            a kind of attention or MLP that has no Linears to widen.
        TypeError: another kind of model.
    """
    vit = vision_transformer(model)
    set_grid(model, token_grid(model))
    config = adapt_config(model)
    if config is None:
        raise MergeError("the model has no adapters to merge; adapt(model, ...) or load_adapter(model, path) adds them")
    origin = {
        "adapt": config.to_json(),
        "backbone": backbone_fingerprint(model),
        "fastloaa": fastloaa.__version__,
    }
    blocks = [_merged_block(index, block) for index, block in enumerate(vit.blocks)]
    # To deepcopy the blocks are copied already: into these.
    merged = copy.deepcopy(model, {id(vit.blocks): nn.Sequential(*blocks)})
    follow_grid(merged, vision_transformer(merged).blocks, token_grid)
    del merged.__dict__["loaa_config"]
    merged.__dict__["loaa_merged_from"] = origin
    return merged.requires_grad_(False).eval()


def merged_from(model: nn.Module) -> dict[str, Any] | None:
    """What `merge` made a model from, None for other models.

    "adapt": the adapters' configuration; "backbone": the fingerprint of the frozen weights that they were trained
    beside, as in adapter files; "fastloaa": the version that merged them.
    """
    return getattr(model, "loaa_merged_from", None)


def _merged_block(index: int, block: nn.Module) -> Block:
    """A plain timm block with an adapted block's weights, copied."""
    if not isinstance(block, AdaptedBlock):
        raise MergeError(f"block {index} is a {type(block).__name__}; expected one that adapt() made")
    if not block.normed_input:
        raise MergeError(
            f"the adapters of block {index} read their block's un-normed input, its Linears the normed one, and a "
            f"LayerNorm is no Linear; only adapters made with normed_input=True can be merged"
        )
    block = copy.deepcopy(block)
    attn, ls1, mlp, ls2 = block.attn, block.ls1, block.mlp, block.ls2
    if block.loaa_attn is not None:
        attn, ls1 = _widen_attention(index, attn, ls1, block.loaa_attn), nn.Identity()
    if block.loaa_ffn is not None:
        mlp, ls2 = _widen_mlp(index, mlp, ls2, block.loaa_ffn), nn.Identity()
    # The children carry all that matters; the sizes given here are those of the parts that they replace.
    plain = Block(dim=1, num_heads=1, device="meta")
    plain.norm1, plain.attn, plain.ls1, plain.drop_path1 = block.norm1, attn, ls1, block.drop_path1
    plain.norm2, plain.mlp, plain.ls2, plain.drop_path2 = block.norm2, mlp, ls2, block.drop_path2
    return plain


def _widen_attention(index: int, attn: Any, scale: nn.Module, adapter: LoAA) -> WidenedAttention:
    if type(attn) is not Attention:
        raise MergeError(f"block {index} has a {type(attn).__name__}; adapters merge into timm's Attention")
    between, inner, outer = _parts(index, adapter, attn.proj)
    qkv, proj = _more_rows(attn.qkv, *inner), _more_columns(_scaled(attn.proj, scale), *outer)
    return WidenedAttention(attn, qkv, proj, between)


def _widen_mlp(index: int, mlp: Any, scale: nn.Module, adapter: LoAA) -> nn.Module:
    if type(mlp) is not Mlp or not isinstance(mlp.fc1, nn.Linear) or not isinstance(mlp.norm, nn.Identity):
        raise MergeError(f"block {index} has a {type(mlp).__name__}; adapters merge into timm's Mlp of two Linears")
    between, inner, outer = _parts(index, adapter, mlp.fc2)
    fc1, fc2 = _more_rows(mlp.fc1, *inner), _more_columns(_scaled(mlp.fc2, scale), *outer)
    if between.columns == between.rank and activation_name(mlp.act) == between.activation:
        mlp.fc1, mlp.fc2 = fc1, fc2  # one tap, the same activation: only wider
        return mlp
    return WidenedMlp(fc1, mlp.act, fc2, between)


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


def _scaled(linear: nn.Linear, scale: nn.Module) -> nn.Linear:
    """A Linear with the LayerScale after it folded in: the adapter's branch does not pass through it."""
    if not isinstance(scale, LayerScale):
        return linear
    gamma = scale.gamma.detach()
    bias = None if linear.bias is None else gamma * linear.bias.detach()
    return linear_of(gamma[:, None] * linear.weight.detach(), bias)


def linear_of(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A Linear around weights that are there."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    linear.weight = nn.Parameter(weight)
    if bias is not None:
        linear.bias = nn.Parameter(bias)
    return linear
