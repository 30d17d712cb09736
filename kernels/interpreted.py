"""Triton's interpreter, which runs kernels on CPU tensors where the environment said so before Triton was imported."""

import torch
import triton

# The environment is Triton's own interface for its interpreter, read when kernels are defined.
INTERPRETED: bool = triton.knobs.runtime.interpret

DTYPES: tuple[torch.dtype, ...] = (torch.float32, torch.float16)
"""What the interpreter computes rightly: bfloat16 it multiplies by bit patterns, and truncates in stores."""


def obstacle(dtype: torch.dtype) -> str | None:
    """Why kernels on tensors of this dtype cannot be interpreted, None if they can."""
    if dtype in DTYPES:
        return None
    return f"Triton's interpreter computes wrongly with {dtype}"
