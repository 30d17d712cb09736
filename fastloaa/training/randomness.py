"""All randomness of a run as a function of (seed, position), so that a resumed run draws what it would have drawn."""

from collections.abc import Iterator
from typing import Any

import torch
from numpy.random import SeedSequence
from torch.utils.data import Sampler

from fastloaa.training.distributed import share

_ORDER, _STEP, _PART = 0, 1, 2  # separate streams


def _seed(*position: int) -> int:
    return int(SeedSequence(position).generate_state(1, "uint64")[0])


def seed_step(seed: int, step: int) -> None:
    """Seed PyTorch's generators, on all devices, for one step: mixup, masks and noise follow from it."""
    torch.manual_seed(_seed(seed, _STEP, step))


def seed_part(seed: int, step: int, part: int) -> None:
    """Seed them for one part of a step's batch: dropout follows from it, and differs between the parts."""
    torch.manual_seed(_seed(seed, _PART, step, part))


class EpochBatches(Sampler[list[Any]]):
    """The batches of an epoch as indices: a DataLoader's `batch_sampler`. The order is a function of (seed, epoch).

    With `windows`, indices come with a place in [0, 1), drawn for each clip and epoch: see `ClipDataset`.

    The last batch may be smaller. Of several processes each has its share of every batch, which may be empty.

    Args:
        length: of the data set.
        batch_size: clips of a batch, of all processes together.
        seed: of the run.
        index, processes: which process of how many this is.
        windows: draw places.
    """

    def __init__(
        self, length: int, batch_size: int, seed: int, index: int = 0, processes: int = 1, windows: bool = False
    ) -> None:
        self.length, self.batch_size, self.seed, self.windows = length, batch_size, seed, windows
        self.index, self.processes = index, processes
        self.start_at(0, 0)

    def start_at(self, epoch: int, batch: int) -> None:
        """Choose the epoch that the next pass runs through, and its first batch."""
        self.epoch, self.first = epoch, batch

    @property
    def per_epoch(self) -> int:
        """Batches of a whole epoch."""
        return -(-self.length // self.batch_size)

    def __len__(self) -> int:
        return self.per_epoch - self.first

    def __iter__(self) -> Iterator[list[Any]]:
        generator = torch.Generator().manual_seed(_seed(self.seed, _ORDER, self.epoch))
        order = torch.randperm(self.length, generator=generator)
        places = torch.rand(self.length, generator=generator)
        for batch in order.split(self.batch_size)[self.first :]:
            own = batch[share(len(batch), self.index, self.processes)]
            yield list(zip(own.tolist(), places[own].tolist(), strict=True)) if self.windows else own.tolist()
