"""What an exported file hears: sounds, or spectrograms from files; of what length, and in which windows."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fastloaa.audio import FRONT_ENDS, AudioError, AudioStream, FrontEnd, LogMelStream, SpectrogramFrontEnd
from fastloaa.audio.logmel import as_numbers, as_samples
from fastloaa.errors import ArgumentError
from fastloaa.export.onnx_file import Metadata
from fastloaa.export.windows import windows

Stream = AudioStream | LogMelStream


@dataclass(frozen=True)
class Hearing:
    """How a file hears recordings.

    A recording is a sound, `[samples]`. To a model that was trained on spectrograms from files it is one of those,
    `[frames, mel_bins]`, and what is said of samples here is meant of frames.

    Args:
        rate: samples a second.
        window: how many are heard at once.
        shortest: how many there are at least in what is answered for.
        mel_bins: of spectrograms; None: sounds are heard.
    """

    rate: int
    window: int
    shortest: int
    mel_bins: int | None = None

    @classmethod
    def of(cls, metadata: Metadata) -> "Hearing":
        """By what a file says about itself.

        Raises:
            ArgumentError: a file that reads images, or of a front end that there is not.
        """
        config, kind = metadata.front_end(), _kind(metadata)
        assert metadata.samples is not None  # only files that read images do without
        shortest = metadata.shortest or min(kind(**config).shortest, metadata.samples)
        return cls(
            config["sample_rate"], metadata.samples, shortest, config["mel_bins"] if kind.reads == "log_mel" else None
        )

    @classmethod
    def by(cls, front_end: SpectrogramFrontEnd) -> "Hearing":
        """What a file hears that is made with a front end."""
        bins = front_end.mel_bins if front_end.reads == "log_mel" else None
        return cls(front_end.sample_rate, front_end.samples, front_end.shortest, bins)

    @property
    def not_a_number(self) -> str:
        """What is said where the model's answer is none, of finite values that are far too large."""
        if self.mel_bins is not None:
            return "the model's answer is not a number; expected log-mels like those that it was trained on"
        return "the model's answer is not a number; expected samples between -1 and 1, divide them by their full scale"

    def open(self, path: Path, live: float | None = None) -> Stream:
        """A file, block by block.

        Args:
            live: of a sound that comes out of a pipe, see `AudioStream`.

        Raises:
            ArgumentError: live spectrograms.
        """
        if self.mel_bins is None:
            return AudioStream(path, self.rate, live)
        if live is not None:
            raise ArgumentError("the model was trained on spectrograms from files, which do not come out of a pipe")
        return LogMelStream(path, self.mel_bins, self.rate)

    def windows(self, blocks: Iterable[Any], hop: int) -> Iterator[tuple[int, Tensor]]:
        """The windows of a recording, by `fastloaa.export.windows`.

        Args:
            blocks: a stream, or arrays that follow each other; those of a file have its `path`.
            hop: from window to window, in samples.

        Raises:
            AudioError: a file that cannot be read, or is shorter than `shortest`.
            ArgumentError: a stream at another rate; arrays of another shape or dtype, that hold none or too few
                samples, or some that are not finite.
        """
        if isinstance(blocks, AudioStream) and blocks.sample_rate != self.rate:
            raise ArgumentError(
                f"an AudioStream at {blocks.sample_rate} Hz, the model hears {self.rate} Hz; open it with "
                f"AudioStream(path, {self.rate})"
            )
        arrived = blocks if isinstance(blocks, Stream) else self._checked(blocks)
        for start, samples in windows(arrived, self.window, hop):
            if too_short := self.too_short(len(samples)):
                raise refused(blocks, too_short)
            yield start, samples

    def too_short(self, samples: int) -> str | None:
        """Why a recording of so many samples is not answered for: nothing in it fills an analysis window."""
        if samples >= self.shortest:
            return None
        return f"{samples} {self._units} at {self.rate} Hz; the model looks at {self.shortest} and more"

    @property
    def _units(self) -> str:
        return "samples" if self.mel_bins is None else "frames"

    def _checked(self, blocks: Iterable[Any]) -> Iterator[Tensor]:
        """Arrays as float32 tensors; at least one sample in all."""
        count = 0
        for block in blocks:
            samples = self._block(block)
            if not samples.isfinite().all():
                raise ArgumentError(
                    f"NaN or infinite {self._units}, among the {len(samples)} from {self._units[:-1]} number {count} on"
                )
            count += len(samples)
            yield samples
        if not count:
            raise ArgumentError(f"no {self._units}, expected at least one")

    def _block(self, block: Any) -> Tensor:
        if self.mel_bins is None:
            samples = as_samples(block).float()
            if samples.ndim != 1:
                raise ArgumentError(
                    f"expected samples [samples], or blocks of them, got shape {list(samples.shape)}; average the "
                    "channels"
                )
            return samples
        frames = as_numbers(block, "log-mels [frames, mel_bins]")
        if frames.shape[1:] != (self.mel_bins,) or not frames.is_floating_point():
            raise ArgumentError(
                f"expected log-mels [frames, mel_bins={self.mel_bins}], or blocks of them, floating point, got "
                f"{frames.dtype} {list(frames.shape)}; the model was trained on spectrograms from files"
            )
        return frames.float()


def file_of(blocks: Iterable[Any]) -> Path | None:
    """The file that blocks are of; None: they are somebody's own."""
    return getattr(blocks, "path", None)


def refused(blocks: Iterable[Any], line: str) -> ArgumentError | AudioError:
    """Why a recording has no answer: of a file with its name."""
    path = file_of(blocks)
    return ArgumentError(line) if path is None else AudioError(f"{path}: {line}")


def front_end_of(metadata: Metadata) -> SpectrogramFrontEnd:
    """The front end of the model that a file was made from.

    Raises:
        ArgumentError: a file that reads images, or of a front end that there is not.
    """
    return _kind(metadata)(**metadata.front_end())


def _kind(metadata: Metadata) -> type[SpectrogramFrontEnd]:
    kind = metadata.front_end_kind or FrontEnd.kind
    if kind not in FRONT_ENDS:
        raise ArgumentError(f"made for the front end {kind!r}, expected {' or '.join(FRONT_ENDS)}; export it again")
    return FRONT_ENDS[kind]
