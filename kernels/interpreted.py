"""Triton's interpreter, which runs kernels on CPU tensors where the environment said so before Triton was imported."""

import torch
import triton


@triton.jit
def _kernel():
    pass


# The environment is Triton's own interface for its interpreter, read when kernels are defined. What `jit` has made of
# one tells which it was in every version; before 3.4 there was no triton.knobs to ask.
INTERPRETED: bool = not isinstance(_kernel, triton.JITFunction)

DTYPES: tuple[torch.dtype, ...] = (torch.float32, torch.float16)
"""What the interpreter computes rightly: bfloat16 it multiplies by bit patterns, and truncates in stores."""


def obstacle(dtype: torch.dtype) -> str | None:
    """Why kernels on tensors of this dtype cannot be interpreted, None if they can."""
    if dtype in DTYPES:
        return None
    return f"Triton's interpreter computes wrongly with {dtype}"
