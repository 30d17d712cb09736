"""The picture of a timeline: what a recording sounds like, and what the model hears in it, one above the other."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator, PercentFormatter
from numpy.typing import NDArray
from torch import Tensor

from fastloaa.audio import SpectrogramFrontEnd
from fastloaa.audio.mel import hertz_of_bins, hertz_of_mel, mel_of_hertz
from fastloaa.export.hearing import front_end_of
from fastloaa.export.onnx_file import Metadata
from fastloaa.export.windows import Window
from fastloaa.figure_text import drawable

COLUMNS = 2000
"""Of the picture at most, twice that on the way: longer recordings share them."""
CLASSES = 10
"""That are shown at most."""
_TICKS = (100, 500, 1000, 2000, 4000, 8000, 16000)  # Hz


class TimelinePicture:
    """Takes a recording and its windows as they come, in memory that does not grow with their length.

    Args:
        metadata: of the file that hears them.
    """

    def __init__(self, metadata: Metadata) -> None:
        self._labels = metadata.labels
        self._front_end = front_end_of(metadata)
        self._sound = _Columns(lambda columns: columns.mean(0))
        self._classes = _Columns(lambda columns: columns.max(0))
        self._seconds = 0.0

    def listen(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Pass on blocks of samples, `[samples]` (`[frames, mel_bins]`), and note what they sound like."""
        return _Noted(blocks, _Spectrogram(self._front_end, self._sound))

    @property
    def is_empty(self) -> bool:
        """Whether nothing was heard: there is no figure then."""
        return not len(self._classes)

    def add(self, window: Window) -> None:
        """What was heard next."""
        middle = (window.start + window.end) / 2
        self._classes.add(middle, middle, window.probabilities)
        self._seconds = window.end

    def figure(self, title: str = "") -> Figure:
        """The log-mel spectrogram above the probabilities of the classes that are likeliest anywhere."""
        times, probabilities = self._classes.edges(self._seconds), self._classes.values()
        peaks = probabilities.max(0)
        best = peaks.argsort()[::-1][:CLASSES]
        (heading, *names), families = drawable([title, *(self._labels[index] for index in best)], longest=60)
        figure = Figure(figsize=(12, 4.2 + 0.28 * len(best)), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 0.6 + 0.28 * len(best)])
        above.set_title(heading, fontsize=11, parse_math=False, fontfamily=families)
        self._draw_sound(above)
        mesh = below.pcolormesh(
            times, np.arange(len(best) + 1), probabilities[:, best].T, cmap="viridis", vmin=0, vmax=1, rasterized=True
        )
        figure.colorbar(mesh, ax=below, label="probability", format=PercentFormatter(1, decimals=0), pad=0.01)
        below.set_yticks(np.arange(len(best)) + 0.5, names, parse_math=False, fontfamily=families)
        below.invert_yaxis()
        below.set_xlim(0, self._seconds)
        below.set_xlabel("time in s")
        if self._seconds >= _MINUTES_FROM:
            below.set_xlabel("time")
            below.xaxis.set_major_formatter(FuncFormatter(_clock))
            steps = [step for step in _STEPS if self._seconds / step <= 12]
            below.xaxis.set_major_locator(MultipleLocator(min(steps, default=_STEPS[-1] * 24)))
        return figure

    def _draw_sound(self, axes: Axes) -> None:
        axes.set_facecolor("0.85")
        stored = self._front_end.reads == "log_mel"
        axes.set_ylabel("mel bin" if stored else "frequency in Hz")
        if not len(self._sound):
            return  # stopped before a frame was noted
        levels = self._sound.values()
        edges = np.arange(levels.shape[1] + 1)
        if not stored:  # of others it is not known what their numbers mean
            levels, edges = levels * self._front_end.decibels, hertz_of_bins(self._front_end, edges)
        low, high = np.quantile(levels, (0.05, 1))
        mesh = axes.pcolormesh(
            self._sound.edges(self._seconds), edges, levels.T, cmap="magma", vmin=low, vmax=high, rasterized=True
        )
        axes.figure.colorbar(mesh, ax=axes, label="log-mel" if stored else "log-mel in dB", extend="min", pad=0.01)
        if stored:
            return
        axes.set_yscale("function", functions=(mel_of_hertz, hertz_of_mel))
        axes.set_yticks([tick for tick in _TICKS if tick <= edges[-1]])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_ylim(*edges[[0, -1]])


_MINUTES_FROM = 180  # seconds
_STEPS = (30, 60, 120, 300, 600, 1200, 1800, 3600, 7200)  # of the ticks


def _clock(seconds: float, _position: int) -> str:
    """1:23:45 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


class _Noted(Iterator[Tensor]):
    """Blocks that are passed on, and noted when the next one is asked for; of a file they keep its name."""

    def __init__(self, blocks: Iterable[Tensor], notes: "_Spectrogram") -> None:
        self.path = getattr(blocks, "path", None)
        self._blocks = self._passed_on(blocks, notes)

    def __next__(self) -> Tensor:
        return next(self._blocks)

    @staticmethod
    def _passed_on(blocks: Iterable[Tensor], notes: "_Spectrogram") -> Iterator[Tensor]:
        for block in blocks:
            yield block
            notes.add(block)
        notes.close()


class _Spectrogram:
    """Frames of a recording that comes in blocks, each once.

    Args:
        into: where they go.
    """

    def __init__(self, front_end: SpectrogramFrontEnd, into: "_Columns") -> None:
        self._front_end, self._into = front_end, into
        self._kept, self._first, self._done = torch.empty(0), 0, 0

    def add(self, block: Tensor) -> None:
        self._kept = torch.cat([self._kept, block])
        size, frames = self._front_end.samples, self._front_end.frames
        while len(self._kept) >= size:
            self._draw(self._kept[:size], frames)
            step = frames * self._front_end.shift
            self._kept, self._first = self._kept[step:].clone(), self._first + step

    def close(self) -> None:
        if len(self._kept):
            self._draw(self._kept, self._front_end.frames)

    @torch.no_grad()
    def _draw(self, samples: Tensor, frames: int) -> None:
        log_mel, valid = self._front_end.padded_log_mel(samples[None])
        for number, frame in enumerate(log_mel[0][valid[0]].numpy()):
            middle = (self._first + (number + 0.5) * self._front_end.shift) / self._front_end.sample_rate
            self._into.add(middle, middle, frame)


class _Columns:
    """A row of columns, each at its time, of which neighbours are joined when they become too many.

    Args:
        join: [columns, n] -> [n].
    """

    def __init__(self, join: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> None:
        self._join, self._each = join, 1
        self._columns: list[tuple[float, float, NDArray[np.float32]]] = []
        self._waiting: list[tuple[float, float, NDArray[np.float32]]] = []

    def __len__(self) -> int:
        return len(self._columns) + bool(self._waiting)

    def add(self, begin: float, end: float, values: NDArray[np.float32]) -> None:
        self._waiting.append((begin, end, values))
        if len(self._waiting) < self._each:
            return
        self._columns.append(self._joined(self._waiting))
        self._waiting = []
        if len(self._columns) == 2 * COLUMNS:
            pairs = zip(self._columns[::2], self._columns[1::2], strict=True)
            self._columns = [self._joined(pair) for pair in pairs]
            self._each *= 2

    def _joined(
        self, columns: Sequence[tuple[float, float, NDArray[np.float32]]]
    ) -> tuple[float, float, NDArray[np.float32]]:
        return columns[0][0], columns[-1][1], self._join(np.stack([values for _, _, values in columns]))

    def _all(self) -> list[tuple[float, float, NDArray[np.float32]]]:
        return [*self._columns, *([self._joined(self._waiting)] if self._waiting else [])]

    def values(self) -> NDArray[np.float32]:
        """[columns, n]."""
        return np.stack([values for _, _, values in self._all()])

    def edges(self, end: float) -> NDArray[np.float64]:
        """[columns + 1], in seconds, from 0 to `end`: halfway between neighbours."""
        between = [(one[1] + other[0]) / 2 for one, other in pairwise(self._all())]
        return np.array([0, *between, end])
