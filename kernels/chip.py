"""The GPU at hand, and how it multiplies: what launches are chosen by."""

import torch


def product_precision(dtype: torch.dtype) -> str:
    """As tl.dot names it: float32 products follow PyTorch's own TF32 switch, others need no choice."""
    return "tf32x3" if dtype == torch.float32 and not _allows_tf32() else "tf32"


def _allows_tf32() -> bool:
    matmul = torch.backends.cuda.matmul
    precision = getattr(matmul, "fp32_precision", None)
    return matmul.allow_tf32 if precision is None else precision == "tf32"  # the first before torch 2.9


def capability(device: torch.device) -> int:
    """80, 90, ...; under the interpreter, where there is no chip, 90."""
    if device.type != "cuda":
        return 90
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def multiprocessors(device: torch.device) -> int:
    """Of the GPU; under the interpreter a handful."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4
