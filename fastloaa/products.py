"""Matrix products, by whichever library is the faster."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastloaa.tracing import exporting

_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def by_onednn(rows: Tensor) -> bool:
    """Whether `product` of these rows is oneDNN's: float32 on a CPU, unless a compiler or an exporter is looking.

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
    )


def product(rows: Tensor, matrix: Tensor) -> Tensor:
    """[m, k] x [n, k]^T -> [m, n]. oneDNN copies what is transposed; that is soon made up for."""
    if by_onednn(rows) and matrix.numel():
        return torch.ops.mkldnn._linear_pointwise(rows, matrix, None, "none", [], "")
    return F.linear(rows, matrix)
