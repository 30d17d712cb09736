"""Counting, under Triton's interpreter, how often a launch loads and stores each element."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

from fastloaa.kernels import launchable


class Traffic:
    """How often a launch loads and stores each element of the tensors it is given."""

    def __init__(self, launch: launchable.Launch) -> None:
        self.launch = launch
        self.tensors = {name: t for name, t in launch.arguments.items() if isinstance(t, Tensor)}
        self.counts = {
            kind: {name: np.zeros(len(t.untyped_storage()) // t.itemsize, np.int64) for name, t in self.tensors.items()}
            for kind in ("loads", "stores")
        }

    def count(self, kind: str, pointers: TensorHandle, mask: TensorHandle) -> None:
        addresses = pointers.data[np.broadcast_to(mask.data, pointers.data.shape)].ravel()
        if not addresses.size:
            return
        for name, tensor in self.tensors.items():
            begin = tensor.untyped_storage().data_ptr()
            if begin <= addresses.min() and addresses.max() < begin + len(tensor.untyped_storage()):
                elements = (addresses - begin).astype(np.int64) // tensor.itemsize
                np.add.at(self.counts[kind][name], elements, 1)
                return
        raise AssertionError(f"{kind} outside every tensor of the launch")

    def of(self, kind: str, name: str) -> Tensor:
        """Counts in the tensor's shape; what lies between its elements must not be touched."""
        counts, tensor = torch.from_numpy(self.counts[kind][name]), self.tensors[name]
        view = counts.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
        assert view.sum() == counts.sum(), f"{kind} beside the elements of {name}"
        return view

    def loads(self, name: str) -> Tensor:
        return self.of("loads", name)

    def stores(self, name: str) -> Tensor:
        return self.of("stores", name)

    def bytes(self) -> int:
        """Of all loads and stores."""
        sizes = {name: tensor.itemsize for name, tensor in self.tensors.items()}
        return sum(int(counts[name].sum()) * size for counts in self.counts.values() for name, size in sizes.items())


@contextmanager
def counted() -> Iterator[list[Traffic]]:
    """The traffic of each launch inside the block."""
    launches: list[Traffic] = []
    run, load, store = (
        launchable.Launch.run,
        InterpreterBuilder.create_masked_load,
        InterpreterBuilder.create_masked_store,
    )

    def counted_run(launch: launchable.Launch) -> None:
        launches.append(Traffic(launch))
        run(launch)

    def counted_load(self, pointers, mask, *rest):  # type: ignore[no-untyped-def]
        launches[-1].count("loads", pointers, mask)
        return load(self, pointers, mask, *rest)

    def counted_store(self, pointers, value, mask, *rest):  # type: ignore[no-untyped-def]
        launches[-1].count("stores", pointers, mask)
        return store(self, pointers, value, mask, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launchable.Launch, "run", counted_run)
        patch.setattr(InterpreterBuilder, "create_masked_load", counted_load)
        patch.setattr(InterpreterBuilder, "create_masked_store", counted_store)
        yield launches


def assert_each(counts: Tensor, expected: Tensor | int) -> None:
    """`expected` is a number for all elements, or one for each token of [batch, tokens, channels]."""
    want = expected if isinstance(expected, int) else expected[None, :, None].expand_as(counts)
    assert torch.equal(counts, torch.full_like(counts, want) if isinstance(want, int) else want)
