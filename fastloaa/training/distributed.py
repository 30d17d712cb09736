"""Several processes as one: each takes its share of every batch, and knows what the others have.

Started by `accelerate launch` or `torchrun`; in a process of its own everything here is the identity.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from accelerate import PartialState
from accelerate.utils import gather, gather_object, pad_across_processes
from torch import Tensor

from fastloaa.data import Batch, Sample, collate


def process_state() -> PartialState:
    """Which process of how many this is, and its device.

    Away from accelerators accelerate has to be told so, or what torchrun starts would not know of each other.
    """
    return PartialState(cpu=not torch.accelerator.is_available())


def share(length: int, index: int, parts: int) -> slice:
    """Part `index` of `length` things in a row: as equal as can be, in order, together all of them."""
    return slice(length * index // parts, length * (index + 1) // parts)


def own_share(length: int) -> slice:
    """This process's part."""
    state = process_state()
    return share(length, state.process_index, state.num_processes)


def gather_rows(rows: Tensor) -> Tensor:
    """`[own rows, ...]` of every process -> `[all rows, ...]` on every process, in the order of the processes."""
    processes = process_state().num_processes
    if processes == 1:
        return rows
    counts = gather(torch.tensor([len(rows)], device=rows.device)).tolist()
    padded = gather(pad_across_processes(rows).contiguous()).unflatten(0, (processes, -1))
    return torch.cat([part[:count] for part, count in zip(padded, counts, strict=True)])


def collate_share(samples: Sequence[Sample], num_classes: int) -> Batch:
    """`collate` for a share that may be empty."""
    if samples:
        return collate(samples)
    none = torch.zeros(0, dtype=torch.int64)
    return Batch(torch.zeros(0, 0), none, torch.zeros(0, num_classes), none, (), ())


@dataclass(frozen=True)
class WholeBatch:
    """What one process alone would have in a batch; the samples stay where they were read.

    Attributes:
        paths, broken, broken_indices: as of a `Batch`, of all processes together.
        own: which of the rows are this process's.
    """

    paths: tuple[str, ...]
    broken: tuple[str, ...]
    broken_indices: tuple[int, ...]
    own: slice

    def __len__(self) -> int:
        return len(self.paths)

    @classmethod
    def of(cls, own: Batch) -> "WholeBatch":
        """From the shares of all processes, on each of them."""
        shares = gather_object([(own.paths, own.broken, own.broken_indices)])
        first = sum(len(paths) for paths, *_ in shares[: process_state().process_index])
        paths, broken, indices = (tuple(chain.from_iterable(part)) for part in zip(*shares, strict=True))
        return cls(paths, broken, indices, slice(first, first + len(own)))


def gather_sounds(own: Batch, empty: tuple[int, ...] = (0,)) -> tuple[Tensor, Tensor, Tensor]:
    """(waveform, targets, lengths) of the batch that one process alone would have, on every process.

    Args:
        empty: shape of a clip of no length.
    """
    if process_state().num_processes == 1:
        return own.waveform, own.targets, own.lengths
    waveform = own.waveform if len(own) else own.waveform.new_zeros(0, *empty)
    waveform = gather_rows(pad_across_processes(waveform, dim=1))
    return waveform, gather_rows(own.targets), gather_rows(own.lengths)
