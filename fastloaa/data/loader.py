"""From clips to batches, past files that cannot be read."""

import gc
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from fastloaa.audio.decode import RESAMPLED_FROM, AudioError
from fastloaa.data.clip import Clip, DataError
from fastloaa.data.clip_list import ClipList
from fastloaa.data.reading import clip_seconds, read_clip

CACHE_BYTES = 1 << 30
"""Decoded sound that one `ClipDataset` keeps in each process: 1 GiB, 4.6 hours at 16 kHz."""
CACHED_CLIPS = 200_000
"""A longer list is not cached: so few of its clips would fit that they are not worth the memory."""


@dataclass(frozen=True)
class Sample:
    """One clip as read: its waveform, float32 `[samples]`, or the one-line `error` of a file that is no sound."""

    index: int  # of the clip in its data set
    path: str
    target: Tensor  # [num_classes], float32, 0 or 1
    waveform: Tensor | None
    error: str | None = None


@dataclass(frozen=True)
class Batch:
    """Clips of one step. A batch without a readable file has length 0: waveform `[0, 0]`, targets `[0, num_classes]`.

    Attributes:
        waveform: float32 `[batch, samples]`, zero-padded at the end to the longest clip.
        lengths: int64 `[batch]`, samples of each clip before padding.
        targets: float32 `[batch, num_classes]`, 1 for the classes of a clip and 0 for others.
        indices: int64 `[batch]`, which clips of the data set they are.
        paths: the files, one per row, with track and segment where a clip has them.
        broken: one-line errors of files that could not be read; they have no row.
    """

    waveform: Tensor
    lengths: Tensor
    targets: Tensor
    indices: Tensor
    paths: tuple[str, ...]
    broken: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """The same batch with its tensors on `device`."""
        return Batch(
            self.waveform.to(device, non_blocking=non_blocking),
            self.lengths.to(device, non_blocking=non_blocking),
            self.targets.to(device, non_blocking=non_blocking),
            self.indices.to(device, non_blocking=non_blocking),
            self.paths,
            self.broken,
        )


class ClipDataset(Dataset[Sample]):
    """Clips decoded on demand, as float32 mono at one rate; a file that cannot be read gives its error instead.

    Of a segment, nothing but the segment is decoded. A clip longer than `max_seconds` is cut at its end, or where an
    index says so: `dataset[index, place]` is a window of `max_seconds` that begins at a share `place` of what is too
    much, from 0.0, the clip's beginning, to 1.0, its end. Such windows are decoded anew each time.

    With `cache`, waveforms stay in memory, up to `CACHE_BYTES`, so that later epochs do not decode again; what does
    not fit is decoded each time, as is a list of more than `CACHED_CLIPS`. Workers of a DataLoader each keep their own:
    give it `persistent_workers=True`, without which they forget after every epoch. A set that fits is fastest with
    `num_workers=0`.

    Args:
        clips: what to read.
        sample_rate: rate of the waveforms in Hz.
        num_classes: length of the targets; labels must be below it.
        max_seconds: cut longer clips; None keeps all.
        cache: keep decoded waveforms.

    Raises:
        DataError: `max_seconds` of no sample, or a label outside the classes.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        sample_rate: int,
        num_classes: int,
        max_seconds: float | None = None,
        cache: bool = True,
    ) -> None:
        self.clips = ClipList.of(clips)  # arrays, which worker processes share
        self.sample_rate = sample_rate
        self.max_samples = None if max_seconds is None else round(max_seconds * sample_rate)
        if self.max_samples is not None and self.max_samples < 1:
            raise DataError(f"max_seconds={max_seconds} leaves no sample at {sample_rate} Hz; give more, or None")
        self.num_classes = num_classes
        labels = self.clips.labels.values
        if ((labels < 0) | (labels >= num_classes)).any():
            clip = next(clip for clip in self.clips if not all(0 <= label < num_classes for label in clip.labels))
            raise DataError(f"{clip} has labels {clip.labels}; expected 0 to {num_classes - 1}")
        self._free_bytes = CACHE_BYTES if cache and len(self) <= CACHED_CLIPS else 0
        self._cache: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, at: int | tuple[int, float]) -> Sample:
        index, place = at if isinstance(at, tuple) else (at, 0.0)
        clip = self.clips[index]
        target = torch.zeros(self.num_classes)
        target[list(clip.labels)] = 1
        try:
            return Sample(index, str(clip), target, self._window(index, place) if place else self._waveform(index))
        except AudioError as error:
            return Sample(index, str(clip), target, None, str(error))

    def is_cut(self, index: int) -> bool:
        """Whether the clip is longer than `max_seconds`, as far as can be told; only headers are read."""
        try:
            return self._too_much(index) > 0
        except AudioError:
            return False

    def _too_much(self, index: int) -> float:
        """Seconds beyond `max_seconds`, at most 0 where there are none."""
        return (
            0.0 if self.max_samples is None else clip_seconds(self.clips[index]) - self.max_samples / self.sample_rate
        )

    def _window(self, index: int, place: float) -> Tensor:
        too_much = self._too_much(index)
        if self.max_samples is None or too_much <= 0:
            return self._waveform(index)
        clip = self.clips[index]
        start = clip.start + place * too_much
        stop = start + self.max_samples / self.sample_rate
        return read_clip(replace(clip, start=start, stop=stop), self.sample_rate)[: self.max_samples]

    def _waveform(self, index: int) -> Tensor:
        if index in self._cache:
            return self._cache[index]
        waveform = read_clip(self._beginning(self.clips[index]), self.sample_rate)
        if self.max_samples is not None and len(waveform) > self.max_samples:
            waveform = waveform[: self.max_samples].clone()  # a view would keep the whole recording in memory
        if waveform.nbytes <= self._free_bytes:
            self._free_bytes -= waveform.nbytes
            self._cache[index] = waveform
        return waveform

    def _beginning(self, clip: Clip) -> Clip:
        """What of the clip is needed, so that a recording of hours is not decoded for its first seconds."""
        if self.max_samples is None:
            return clip
        stop = clip.start + self.max_samples / self.sample_rate + RESAMPLED_FROM
        return clip if clip.stop is not None and clip.stop <= stop else replace(clip, stop=stop)


def collate(samples: Sequence[Sample]) -> Batch:
    """A `Batch` of the samples that could be read, with the errors of the others: a DataLoader's `collate_fn`."""
    waveforms = [sample.waveform for sample in samples if sample.waveform is not None]
    readable = torch.tensor([sample.waveform is not None for sample in samples])
    indices = torch.tensor([sample.index for sample in samples])
    return Batch(
        waveform=pad_sequence(waveforms, batch_first=True) if waveforms else torch.zeros(0, 0),
        lengths=torch.tensor([len(waveform) for waveform in waveforms], dtype=torch.int64),
        targets=torch.stack([sample.target for sample in samples])[readable],
        indices=indices[readable],
        paths=tuple(sample.path for sample in samples if sample.waveform is not None),
        broken=tuple(sample.error for sample in samples if sample.error is not None),
    )


class BrokenFiles:
    """Counts files that could not be read, over any number of epochs, and lets each be named once.

    Args:
        total: number of files in the data set.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.errors: dict[str, None] = {}  # a set that keeps the order of discovery

    def __len__(self) -> int:
        return len(self.errors)

    def add(self, errors: Iterable[str]) -> tuple[str, ...]:
        """Those of a batch's errors that were not seen before, to be shown.

        Raises:
            DataError: now all files of the data set are known to be broken.
        """
        new = tuple(error for error in dict.fromkeys(errors) if error not in self.errors)
        self.errors.update(dict.fromkeys(new))
        if self.total and len(self) >= self.total:
            raise DataError(f"{self.summary()}; none is left, check the data")
        return new

    def summary(self) -> str:
        """One line: how many files could not be read, and the first three; "" if none."""
        if not self.errors:
            return ""
        named = list(self.errors)[:3]
        more = f"; and {len(self) - len(named)} more" if len(self) > len(named) else ""
        return f"{len(self)} of {self.total} files could not be read: {'; '.join(named)}{more}"


def start_worker(_number: int) -> None:
    """A DataLoader's `worker_init_fn`: what the process above had left to be collected is not collected here.

    A session of onnxruntime among it would wait for ever for its threads, which a forked process does not have.
    """
    gc.freeze()
