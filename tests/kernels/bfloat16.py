"""bfloat16 in Triton's interpreter, put right for the tests, as a GPU computes with it.

Triton 3.6 keeps bfloat16 blocks as the integers of their bits. Its interpreter multiplies and adds those integers as
they are, and cuts float32 off where a GPU rounds. What stands here instead imitates the hardware:

- `tl.dot` widens both operands to float32, which is exact, and accumulates in float32 (HMMA, HGMMA);
- a cast from float32, which a store to a bfloat16 tensor contains, rounds to the nearest, ties to even, and keeps NaN
  (cvt.rn.bf16.f32);
- a cast to float32 appends zeros, which is exact; casts from and to all else go through float32;
- arithmetic on bfloat16 blocks themselves is refused: what a GPU makes of it depends on the chip, and the kernels
  compute in float32.

What is not imitated: the order in which a tensor core adds, and what it cuts off below float32's last place.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import triton.language as tl
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

from fastloaa.kernels import interpreted
from fastloaa.kernels.remembered import forget


def widen(bits: np.ndarray) -> np.ndarray:
    """The bits of bfloat16 numbers (uint16) as float32, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def narrow(values: np.ndarray) -> np.ndarray:
    """Float32 to the bits of the nearest bfloat16, ties to even, NaN to NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).reshape(values.shape)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16  # may carry into the exponent, up to infinity
    return np.where(np.isnan(values), (bits >> 16) | 0x40, rounded).astype(np.uint16)


@contextmanager
def put_right() -> Iterator[None]:
    """Inside the block the interpreter computes bfloat16 as above, and the library takes bfloat16 there."""
    cast, dot, binary = InterpreterBuilder.cast_impl, InterpreterBuilder.create_dot, InterpreterBuilder.binary_op

    def cast_right(self: Any, source: TensorHandle, target: Any) -> TensorHandle:
        if source.dtype.scalar == tl.bfloat16:
            source = TensorHandle(widen(source.data), tl.float32)
        if target.scalar == tl.bfloat16:
            return TensorHandle(narrow(source.data.astype(np.float32)), tl.bfloat16)
        return cast(self, source, target)

    def dot_right(self: Any, a: TensorHandle, b: TensorHandle, *rest: Any) -> TensorHandle:
        a, b = (
            TensorHandle(widen(side.data), tl.float32) if side.dtype.scalar == tl.bfloat16 else side for side in (a, b)
        )
        return dot(self, a, b, *rest)

    def binary_right(self: Any, left: TensorHandle, right: TensorHandle, operation: Any) -> TensorHandle:
        if tl.bfloat16 in (left.dtype.scalar, right.dtype.scalar):
            raise TypeError(f"{operation.__name__} on bfloat16 blocks; convert them to float32 first")
        return binary(self, left, right, operation)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InterpreterBuilder, "cast_impl", cast_right)
        patch.setattr(InterpreterBuilder, "create_dot", dot_right)
        patch.setattr(InterpreterBuilder, "binary_op", binary_right)
        patch.setattr(interpreted, "DTYPES", (*interpreted.DTYPES, torch.bfloat16))
        forget()
        yield
    forget()
