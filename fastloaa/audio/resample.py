"""From one sample rate to another, at once or block by block."""

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import lru_cache

import torch
from torch import Tensor
from torchaudio.transforms import Resample

from fastloaa.audio.logmel import as_samples
from fastloaa.errors import ArgumentError


def resample(samples: Tensor, source: int, target: int) -> Tensor:
    """Samples `[..., samples]` at the rate `target` instead of `source`, both in Hz, by a windowed sinc.

    Raises:
        ArgumentError: samples that are neither floating-point nor 16-bit integers, or a rate below 1.
    """
    samples = as_samples(samples)
    if source < 1 or target < 1:
        raise ArgumentError(f"expected rates in Hz, at least 1, got {source} and {target}")
    return samples if source == target else _resampler(source, target)(samples)


def resampled_blocks(blocks: Iterable[Tensor], source: int, target: int) -> Iterator[Tensor]:
    """`resample` of a sound that comes in blocks, of which no more is kept than the filter reaches.

    Args:
        blocks: float `[samples]` each, that follow each other.
        source, target: rates in Hz, at least 1.

    Yields:
        Blocks that follow each other: joined, they are the sound resampled as a whole, within rounding.
    """
    if source == target:
        yield from blocks
        return
    resampler = _resampler(source, target)
    # Every `old` samples become `new`, by filters that reach `width` samples beyond them on either side.
    old, new = resampler.orig_freq // resampler.gcd, resampler.new_freq // resampler.gcd
    margin = (math.ceil(resampler.width / old) + 1) * old
    kept = torch.empty(0)
    done = 0  # of the samples kept, those at the beginning whose place has been filled
    for block in blocks:
        kept = torch.cat([kept, block])
        ready = (len(kept) - margin) // old * old
        if ready <= done:
            continue
        yield resampler(kept[: ready + margin])[done // old * new : ready // old * new].clone()
        dropped = max(ready - margin, 0)
        kept, done = kept[dropped:].clone(), ready - dropped
    if len(kept) > done:
        yield resampler(kept)[done // old * new :]


@lru_cache(maxsize=32)
def _resampler(source: int, target: int) -> Resample:
    """The windowed-sinc resampler of two rates in Hz, kept: building one costs half as much as using it on 5 s."""
    # Its filters grow with the reduced ratio: gigabytes at 44,101 -> 16,000 Hz. All usual rates reduce to terms below
    # 2000 (441/160, 1280/147) and stay exact; any other is off by at most one part in 4000, half a cent.
    low, high = sorted((source, target))
    ratio = Fraction(low, high).limit_denominator(2000)
    if source > target:
        return Resample(ratio.denominator, ratio.numerator)
    return Resample(ratio.numerator, ratio.denominator)
