"""Matrix products, by whichever library is the faster."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastloaa.ops.tracing import exporting, transformed

_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def by_onednn(rows: Tensor, matrix: Tensor | None = None) -> bool:
    """Whether `product` of these is oneDNN's: float32 on a CPU, unless somebody looks who knows PyTorch's own alone.

    That is a compiler, an exporter, a transform, a mode that counts operations, or autograd, which takes no derivative
    of this one.

    For these PyTorch itself takes MKL, which uses half of the vector units of AMD's processors: there a product takes
    twice the time. `torch.backends.mkldnn.flags(enabled=False)` switches oneDNN off here too.
    """
    return (
        _HAS_ONEDNN
        and rows.dtype == torch.float32
        and rows.device.type == "cpu"
        and rows.numel() > 0
        and bool(torch.backends.mkldnn.enabled)
        and not torch.compiler.is_compiling()
        and not exporting()
        and not transformed()
        and torch._C._len_torch_dispatch_stack() == 0
        and not (torch.is_grad_enabled() and (rows.requires_grad or (matrix is not None and matrix.requires_grad)))
    )


def product(rows: Tensor, matrix: Tensor) -> Tensor:
    """[m, k] x [n, k]^T -> [m, n]. oneDNN copies what is transposed; that is soon made up for."""
    if by_onednn(rows, matrix) and matrix.numel():
        # A transposed operand that repeats one value in memory, as the gradient of a sum does, takes it a hundred times
        # as long.
        rows, matrix = (t.contiguous() if 0 in t.stride() else t for t in (rows, matrix))
        return torch.ops.mkldnn._linear_pointwise(rows, matrix, None, "none", [], "")
    return F.linear(rows, matrix)
