"""The input that a block and its adapter share: normed once, and recomputed in the backward pass rather than kept."""

from typing import NamedTuple, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastloaa.ops.autocast import autocast_dtype
from fastloaa.ops.tracing import hooked


class NormedFrom(NamedTuple):
    """Says of a tensor that it is `layer_norm(residual)`, cast to whatever dtype it has.

    Autograd keeps `residual` [batch, tokens, dim] for the norm itself, so an adapter that knows where its input comes
    from keeps nothing as wide as the model. weight, bias [dim] and eps are the norm's.

    Examples:
        >>> import torch
        >>> from fastloaa import LoAA, NormedFrom
        >>> norm, layer, x = torch.nn.LayerNorm(16), LoAA(16, 4, freq_bins=2), torch.randn(1, 8, 16)
        >>> out = layer(norm(x), normed_from=NormedFrom(x, norm.weight, norm.bias, norm.eps))
    """

    residual: Tensor
    weight: Tensor | None
    bias: Tensor | None
    eps: float


def recompute(source: NormedFrom, dtype: torch.dtype) -> Tensor:
    """The tensor again: [batch, tokens, dim] in `dtype`, without a gradient of its own."""
    residual, weight, bias, eps = source
    residual = residual if weight is None else residual.to(weight.dtype)  # as autocast does
    return F.layer_norm(residual, residual.shape[-1:], weight, bias, eps).to(dtype)


def norm_once(norm: nn.Module, residual: Tensor) -> tuple[Tensor, NormedFrom | None]:
    """`norm(residual)` for a block and its adapter, and where it comes from if `norm` is a LayerNorm.

    One of PyTorch's or timm's without hooks, that is: of others it is not known what they compute.

    Under autocast the result has its dtype: a block's Linear and its adapter would else cast it for themselves, and
    their gradients would be summed in float32.

    Examples:
        >>> import torch
        >>> from fastloaa import LoAA, norm_once
        >>> norm, layer, x = torch.nn.LayerNorm(16), LoAA(16, 4, freq_bins=2), torch.randn(1, 8, 16)
        >>> normed, source = norm_once(norm, x)
        >>> attention_out = normed  # whatever the block makes of it
        >>> x = layer(normed, attention_out, x, source)  # keeps nothing as wide as the model for the backward pass
    """
    normed = as_autocast(norm(residual))
    if not _is_layer_norm(norm):
        return normed, None
    return normed, NormedFrom(residual, norm.weight, norm.bias, norm.eps)


def _is_layer_norm(norm: nn.Module) -> TypeGuard[nn.LayerNorm]:
    """Whether `recompute` gives what it gives: subclasses of other libraries and hooks may do anything."""
    known = isinstance(norm, nn.LayerNorm) and type(norm).__module__.partition(".")[0] in ("torch", "timm")
    return known and not hooked(norm)


@torch.fx.wrap
def as_autocast(tensor: Tensor) -> Tensor:
    """The tensor in the dtype of autocast, where that is on. One node to symbolic tracing, which sees no device."""
    dtype = autocast_dtype(tensor.device.type)
    return tensor if dtype is None else tensor.to(dtype)
