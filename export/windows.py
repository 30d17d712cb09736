"""Which windows of a recording a model hears, and one answer of theirs.

A file hears `samples` samples at its rate, one window, W. Of a recording of n samples at that rate, channels averaged,

- n < S, the samples of one analysis window (`shortest` in the file's metadata): no frame is full, so there is nothing
  to hear. It is refused.
- S <= n <= W: it hears one window, all of the recording as it is. Zeros put behind it would change its mean, and so its
  answer; the graph pads what it has to.
- n > W: it hears windows of W samples that begin at 0, H, 2H, ... as long as they end within the recording, and if the
  last of these does not end with it, one more, which does, from n - W on. So window i of ceil((n - W) / H) + 1 begins
  at min(i * H, n - W), none is padded, and all is heard if H <= W. A longer hop H leaves gaps.

The answer for the recording is, for each class, the mean of its probabilities in all windows, which count alike: of a
softmax these means still sum to 1, and no window has more than one vote, however large its logits. The other choice is
their maximum, which finds a short sound in a long recording, and sums to more than 1.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastloaa.errors import ArgumentError
from fastloaa.inputs import number

Pool = Literal["mean", "max"]


@dataclass(frozen=True, eq=False)
class Window:
    """What is heard in a part of a recording.

    Args:
        start, end: of the part, in seconds.
        probabilities: of the classes, float32 `[classes]`, in the order of `metadata.labels`.
    """

    start: float
    end: float
    probabilities: NDArray[np.float32]


def hop_samples(hop: float | None, size: int, sample_rate: int) -> int:
    """From window to window, in samples.

    Args:
        hop: in seconds; None: half a window.
        size: of a window, in samples.

    Raises:
        ArgumentError: a hop that is not above 0.
    """
    if hop is None:
        return max(size // 2, 1)
    if number("hop", hop) <= 0:
        raise ArgumentError(f"hop is in seconds from window to window, above 0; got {hop}")
    return max(round(hop * sample_rate), 1)


def windows(blocks: Iterable[Tensor], size: int, hop: int) -> Iterator[tuple[int, Tensor]]:
    """Cut a recording into windows while it arrives; of it no more is kept than the next one needs, and the last.

    Args:
        blocks: float `[samples]` each, that follow each other; of spectrograms `[frames, mel_bins]`, whose frames are
            what is counted here.
        size: of a window, in samples.
        hop: from window to window, in samples.

    Yields:
        (number of the first sample, samples `[size]`), as soon as the samples are there; of a recording that is no
        longer than a window, all of it.
    """
    kept = torch.empty(0)
    first = start = end = 0  # numbers of samples: kept[0], where the next window begins, where the last one ended
    for block in blocks:
        kept = torch.cat([kept, block])
        while first + len(kept) >= start + size:
            yield start, kept[start - first :][:size].clone()
            end = start + size
            start += hop
        dropped = max(min(start - first, len(kept) - size), 0)
        kept, first = kept[dropped:], first + dropped
    if first + len(kept) > end:
        last = kept[-size:].clone()
        yield first + len(kept) - len(last), last


class Pooled:
    """One answer of many windows.

    Args:
        pool: how; see this module.

    Raises:
        ArgumentError: another name.
    """

    def __init__(self, pool: Pool) -> None:
        if pool not in get_args(Pool):
            raise ArgumentError(f"pool is {' or '.join(map(repr, get_args(Pool)))}; got {pool!r}")
        self._pool, self._count = pool, 0
        self._value: NDArray[np.float64] | None = None

    def add(self, probabilities: NDArray[np.float32]) -> None:
        """One window more, `[classes]`."""
        self._count += 1
        if self._value is None:
            self._value = probabilities.astype(np.float64)
        elif self._pool == "mean":
            self._value += probabilities
        else:
            np.maximum(self._value, probabilities, out=self._value)

    def result(self) -> NDArray[np.float32] | None:
        """Of the windows since the last result, `[classes]`; None: there were none."""
        value, count = self._value, self._count
        self._value, self._count = None, 0
        if value is None:
            return None
        return (value / count if self._pool == "mean" else value).astype(np.float32)
