"""All randomness of a run as a function of (seed, position), so that a resumed run draws what it would have drawn."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.random import SeedSequence
from torch import Tensor
from torch.utils.data import Sampler, WeightedRandomSampler

from fastloaa.data import ClipList
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


def class_balance(clips: ClipList, classes: int) -> Tensor:
    """Weights to draw clips by, float64 `[clips]`: the sum over a clip's labels of 1000 / (n + 0.01), where n clips
    have the label.

    Source: `gen_weight_file.py` of AST.
    """
    of_label = 1000 / (clips.label_counts(classes) + 0.01)
    clip_of = np.repeat(np.arange(len(clips)), clips.labels.lengths)
    return torch.from_numpy(np.bincount(clip_of, of_label[clips.labels.values], minlength=len(clips)))


class EpochBatches(Sampler[list[Any]]):
    """The batches of an epoch as indices: a DataLoader's `batch_sampler`. The order is a function of (seed, epoch).

    With `windows`, indices come with a place in [0, 1), drawn anew each time that a clip comes: see `ClipDataset`.

    With `weights`, an epoch is as many draws with replacement, each clip in proportion to its weight.

    The last batch may be smaller. Of several processes each has its share of every batch, which may be empty.

    Args:
        length: of the data set.
        batch_size: clips of a batch, of all processes together.
        seed: of the run.
        index, processes: which process of how many this is.
        windows: draw places.
        weights: `[length]`, above 0; None: every clip once.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        index: int = 0,
        processes: int = 1,
        windows: bool = False,
        weights: Tensor | None = None,
    ) -> None:
        self.weights = weights
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
        if self.weights is None:
            order = torch.randperm(self.length, generator=generator)
        else:
            drawn = WeightedRandomSampler(self.weights, self.length, generator=generator)  # type: ignore[arg-type]
            order = torch.tensor(list(drawn))
        places = torch.rand(self.length, generator=generator)
        if self.weights is None:  # each clip comes once, whatever its place in the order
            places = places[order]
        batches = zip(order.split(self.batch_size), places.split(self.batch_size), strict=True)
        for batch, starts in islice(batches, self.first, None):
            own = share(len(batch), self.index, self.processes)
            clips = batch[own].tolist()
            yield list(zip(clips, starts[own].tolist(), strict=True)) if self.windows else clips
