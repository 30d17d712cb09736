"""Recordings to windows and windows to batches: decoding beside the model, answers in the order of the recordings."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastloaa.audio import AudioError
from fastloaa.export.hearing import Hearing

_AHEAD = 2  # recordings that are begun for each thread


@dataclass(eq=False)
class Piece:
    """A window of a recording.

    Args:
        start: number of its first sample.
        waveform: float32 `[samples]`; of a stored spectrogram `[frames, mel_bins]`.

    Attributes:
        answer: the probabilities, float32 `[classes]`, of a window that went through `answered`.
    """

    start: int
    waveform: Tensor
    answer: NDArray[np.float32] = field(init=False)


@dataclass(frozen=True)
class End:
    """What is known of a recording behind its last window.

    Args:
        path: of the file.
        seconds: its length.
        heard: how much of that is in windows, in seconds.
        error: why it cannot be read, one line, else None.
    """

    path: Path
    seconds: float = 0.0
    heard: float = 0.0
    error: str | None = None


Part = Piece | End


def parts(path: Path, hearing: Hearing, hop: int) -> Generator[Part, None, None]:
    """The windows of a file, and its end; one that cannot be read, or is too short, ends with an error."""
    stream, heard, end = hearing.open(path), 0, 0
    try:
        for start, waveform in hearing.windows(stream, hop):
            heard += start + len(waveform) - max(start, end)
            end = start + len(waveform)
            yield Piece(start, waveform)
        yield End(path, stream.seconds, stream.seconds if heard == end else heard / hearing.rate)
    except (AudioError, OSError) as error:
        yield End(path, error=str(error))
    finally:
        stream.close()


def ahead(
    paths: Iterable[Path], open_parts: Callable[[Path], Generator[Part, None, None]], workers: int, count: int
) -> Iterator[Part]:
    """The parts of all recordings in order, while threads decode those that come next.

    Threads suffice: decoders and PyTorch let others run while they work.

    Args:
        workers: how many threads; 0: none, everything is decoded when it is asked for.
        count: most parts of a recording that wait to be asked for, so that memory does not grow with its length.
    """
    if not workers:
        for path in paths:
            yield from open_parts(path)
        return

    def take(opened: Iterator[Part]) -> list[Part]:
        return list(islice(opened, count))

    begun: deque[tuple[Generator[Part, None, None], Future[list[Part]] | None]] = deque()
    paths = iter(paths)
    with ThreadPoolExecutor(workers, "decode") as threads:
        try:
            while True:
                for path in islice(paths, workers * _AHEAD - len(begun)):
                    opened = open_parts(path)
                    # A thread that waits for a pipe cannot be stopped, and the process would wait for it.
                    begun.append((opened, threads.submit(take, opened) if os.path.isfile(path) else None))  # noqa: PTH113 (never raises)
                if not begun:
                    return
                opened, ready = begun.popleft()
                while found := take(opened) if ready is None else ready.result():
                    ready = ready and threads.submit(take, opened)
                    yield from found
        finally:
            threads.shutdown(cancel_futures=True)
            for opened, _ in begun:
                opened.close()


def answered(found: Iterable[Part], run: Callable[[Tensor], NDArray[np.float32]], batch_size: int) -> Iterator[Part]:
    """The same parts in the same order, with probabilities; neighbours of one length share a batch.

    Args:
        run: the windows of a batch, float32 `[batch, samples]`, -> float32 `[batch, classes]`.
    """
    batch: list[Piece] = []
    waiting: list[Part] = []  # the batch, and the ends that stand between its windows

    def answers() -> Iterator[Part]:
        if batch:
            rows = run(torch.stack([piece.waveform for piece in batch]))
            for piece, row in zip(batch, rows, strict=True):
                piece.answer = row
        yield from waiting
        batch.clear()
        waiting.clear()

    for part in found:
        if isinstance(part, Piece):
            if batch and len(part.waveform) != len(batch[0].waveform):
                yield from answers()
            batch.append(part)
        waiting.append(part)
        if len(batch) in (0, batch_size):
            yield from answers()
    yield from answers()
