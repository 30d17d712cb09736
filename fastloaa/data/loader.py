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
        broken_indices: which clips of the data set those are, one for each error.
    """

    waveform: Tensor
    lengths: Tensor
    targets: Tensor
    indices: Tensor
    paths: tuple[str, ...]
    broken: tuple[str, ...]
    broken_indices: tuple[int, ...] = ()

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
            self.broken_indices,
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
        mel_bins: that stored spectrograms must have, or they count as broken; None: any.

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
        mel_bins: int | None = None,
    ) -> None:
        self.clips = ClipList.of(clips)  # arrays, which worker processes share
        self.sample_rate = sample_rate
        self.max_samples = None if max_seconds is None else round(max_seconds * sample_rate)
        if self.max_samples is not None and self.max_samples < 1:
            raise DataError(f"max_seconds={max_seconds} leaves no sample at {sample_rate} Hz; give more, or None")
        self.num_classes, self.mel_bins = num_classes, mel_bins
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
        return self._read(replace(clip, start=start, stop=stop))[: self.max_samples]

    def _waveform(self, index: int) -> Tensor:
        if index in self._cache:
            return self._cache[index]
        waveform = self._read(self._beginning(self.clips[index]))
        if self.max_samples is not None and len(waveform) > self.max_samples:
            waveform = waveform[: self.max_samples].clone()  # a view would keep the whole recording in memory
        if waveform.nbytes <= self._free_bytes:
            self._free_bytes -= waveform.nbytes
            self._cache[index] = waveform
        return waveform

    def _read(self, clip: Clip) -> Tensor:
        waveform = read_clip(clip, self.sample_rate)
        if waveform.ndim == 2 and self.mel_bins not in (None, waveform.shape[1]):
            has = f"has {waveform.shape[1]} mel bins, expected {self.mel_bins}"
            raise AudioError(f"{clip.path}: {has}; make it as the others are")
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
        broken_indices=tuple(sample.index for sample in samples if sample.error is not None),
    )


class BrokenFiles:
    """Counts clips that could not be read, over any number of epochs, and lets what is wrong be said once.

    Windows of one clip may each say something else (where a NaN is, say), and clips of one file the same.

    Args:
        total: number of clips in the data set.

    Attributes:
        clips: those that are known to be broken.
        errors: the lines about them.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.clips: set[int] = set()
        self.errors: dict[str, None] = {}  # a set that keeps the order of discovery

    def __len__(self) -> int:
        return len(self.clips)

    def add(self, errors: Iterable[str], clips: Iterable[int]) -> tuple[str, ...]:
        """Those of a batch's errors that were not seen before, to be shown.

        Args:
            errors, clips: `broken` and `broken_indices` of the batch.

        Raises:
            DataError: now all clips of the data set are known to be broken.
        """
        new: dict[str, None] = {}
        for error, clip in zip(errors, clips, strict=True):
            if clip not in self.clips and error not in self.errors:
                new[error] = None
            self.clips.add(clip)
        self.errors.update(new)
        if self.total and len(self) >= self.total:
            raise DataError(f"{self.summary()}; none is left, check the data")
        return tuple(new)

    def summary(self) -> str:
        """One line: how many files could not be read, and the first three; "" if none."""
        if not self.errors:
            return ""
        named = list(self.errors)[:3]
        more = f"; and {len(self.errors) - len(named)} more" if len(self.errors) > len(named) else ""
        return f"{len(self)} of {self.total} files could not be read: {'; '.join(named)}{more}"


def start_worker(_number: int) -> None:
    """A DataLoader's `worker_init_fn`: what the process above had left to be collected is not collected here.

    A session of onnxruntime among it would wait for ever for its threads, which a forked process does not have.
    """
    gc.freeze()
