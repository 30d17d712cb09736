"""Sound files to mono waveforms at one rate."""

from fastloaa.extras import needs

needs("soundfile", "torchaudio")

import math
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import lru_cache
from numbers import Real
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from fastloaa.audio.ffmpeg import FFmpegFile
from fastloaa.audio.formats import formats_installed, needs_ffmpeg
from fastloaa.audio.logmel import described
from fastloaa.audio.resample import resample, resampled_blocks
from fastloaa.audio.sndfile import NotLibsndfiles, SndFile
from fastloaa.audio.sources import STANDARD_INPUT, LivePipe, Unreadable, length_of, open_source
from fastloaa.errors import FastloaaError
from fastloaa.inputs import whole

LONGEST = 1 << 30
"""Samples that are read at once are fewer: 4 GiB, 6.2 hours at 48 kHz."""
RESAMPLED_FROM = 0.02
"""Seconds around a sample that it is resampled from, and more: 6 samples of the lower rate, which is above 1 kHz."""
_NO_SAMPLES = "holds no samples; record it again or leave it out"
_TOO_MANY = "too many to read at once; read it in segments, by start and stop"


class AudioError(FastloaaError, ValueError):
    """A file that cannot be used as a recording; the message is one line that names the file."""


class AudioWarning(UserWarning):
    """A file that was read, though something about it was not as it should be; one line that names the file."""


def load_audio(
    path: str | PathLike[str], sample_rate: int = 16000, start: float = 0.0, stop: float | None = None
) -> Tensor:
    """Decode a sound file: channels averaged, resampled, full scale at ±1.

    The length in a header is taken for a hint: what decodes is returned, to its end.

    Args:
        path: whatever libsndfile decodes: wav, flac, ogg (Vorbis, Opus), mp3, aiff and more, any channels and rate;
            with the extra `fastloaa[formats]` also what FFmpeg does: m4a, aac, webm, wma, mp4 and more. A named pipe
            is read to its end, as is standard input, which is called `-`.
        sample_rate: rate of the result in Hz.
        start, stop: the segment to read, in seconds; nothing behind it is decoded, and nothing before it where the
            format can be entered in the middle. What lies beyond the end of the file is missing from the result; None
            stops at the end.

    Returns:
        float32 `[samples]`, samples >= 1.

    Raises:
        AudioError: the path is missing, a folder or a device, or the file is not audio, empty, truncated, damaged,
            holds NaN or infinite samples, has a rate outside 1 kHz to 1 MHz, ends before `start`, or is of a kind that
            needs the extra; a pipe that nothing comes out of; more than `LONGEST` samples; times or a rate that make no
            sense. Ogg and mp3 are streams that do not declare their length, so a cut one counts as a short recording.

    Warns:
        AudioWarning: the header was never finished (a recorder that was cut off), and everything behind it is read.

    Examples:
        >>> import numpy, soundfile
        >>> from fastloaa.audio import load_audio
        >>> soundfile.write("clip.wav", numpy.zeros((44100, 2)), 44100)
        >>> load_audio("clip.wav").shape  # one channel at 16 kHz
        torch.Size([16000])
        >>> load_audio("clip.wav", sample_rate=8000, start=0.25, stop=0.75).shape
        torch.Size([4000])
    """
    path, sample_rate = _checked(path, sample_rate)
    times = (start, *(() if stop is None else (stop,)))
    if not all(isinstance(time, Real) for time in times) or not 0 <= start < (math.inf if stop is None else stop):
        raise AudioError(f"{path}: expected a segment with 0 <= start < stop in seconds, got {start!r} to {stop!r}")
    with _opened(path, only_beginning=stop is not None) as sound:
        if sound.note:
            warnings.warn(f"{path}: {sound.note}", AudioWarning, stacklevel=2)
        first = _number(start, sound.rate)
        end = None if stop is None or stop == math.inf else max(_number(stop, sound.rate), first + 1)
        return resample(_samples(sound, first, end), sound.rate, sample_rate)


def load_beginning(path: str | PathLike[str], sample_rate: int, samples: int) -> tuple[Tensor, float]:
    """The first samples of a sound of any length, and how long all of it is: for models that hear no more.

    All of it is decoded, so that a file which is cut or damaged is found, but only the beginning is kept and resampled.

    Args:
        path, sample_rate: as of `load_audio`.
        samples: most of the result, at `sample_rate`.

    Returns:
        What `load_audio(path, sample_rate)[:samples]` is, and seconds.

    Raises:
        AudioError: as of `load_audio`, but for the number of samples in the file.
        ArgumentError: `samples` below 1.

    Warns:
        AudioWarning: as of `load_audio`.
    """
    path, sample_rate = _checked(path, sample_rate)
    samples = whole("samples", samples)
    with _opened(path) as sound:
        if sound.note:
            warnings.warn(f"{path}: {sound.note}", AudioWarning, stacklevel=2)
        end = math.ceil((samples / sample_rate + RESAMPLED_FROM) * sound.rate)
        kept, count = [], 0
        for part in _finite(sound, 0, None):
            if count < end:
                kept.append(part[: end - count])
            count += len(part)
        if not kept:
            raise Unreadable(_NO_SAMPLES)
        return resample(torch.cat(kept), sound.rate, sample_rate)[:samples].clone(), count / sound.rate


class AudioStream(Iterator[Tensor]):
    """A sound of any length, block by block: what `load_audio` gives, in memory that does not grow with the length.

    The file is opened when the first block is asked for. `close` closes it before its end.

    Args:
        path, sample_rate: as of `load_audio`.
        live: of a wav, au or flac that comes out of a pipe, how many seconds of it make a block, which is there as soon
            as they are: a microphone, say, whose recording has no end. Such a pipe is not kept, whatever its length.
            None: a pipe is read to its end first.

    Attributes:
        path: as a Path.
        sample_rate: of the blocks.
        seconds: how much has been decoded; at the end, how long the sound is.

    Yields:
        Blocks that follow each other, float32 `[samples]`, samples >= 1.

    Raises:
        AudioError: as of `load_audio`, but for the number of samples, when reading gets there; a live pipe of another
            kind.

    Warns:
        AudioWarning: as of `load_audio`.
    """

    def __init__(self, path: str | PathLike[str], sample_rate: int = 16000, live: float | None = None) -> None:
        self.path, self.sample_rate = _checked(path, sample_rate)
        self._live = live
        self.seconds = 0.0
        self._blocks = self._decoded()

    def __next__(self) -> Tensor:
        return next(self._blocks)

    def close(self) -> None:
        """Close the file."""
        self._blocks.close()

    def _decoded(self) -> Generator[Tensor, None, None]:
        with _opened(self.path, live=self._live is not None) as sound:
            if sound.note:
                warnings.warn(f"{self.path}: {sound.note}", AudioWarning, stacklevel=2)
            yield from resampled_blocks(self._counted(sound), sound.rate, self.sample_rate)
            if not self.seconds:
                raise Unreadable(_NO_SAMPLES)

    def _counted(self, sound: SndFile | FFmpegFile) -> Iterator[Tensor]:
        count, size = 0, None if self._live is None else max(round(self._live * sound.rate), 1)
        for block in _finite(sound, 0, None, size):
            count += len(block)
            self.seconds = count / sound.rate
            yield block


def _checked(path: str | PathLike[str], sample_rate: int) -> tuple[Path, int]:
    """What all of them take, as Path and int."""
    if not isinstance(path, str | PathLike):
        raise AudioError(f"expected the path of a sound file, got {described(path)}; FrontEnd takes samples")
    if not isinstance(sample_rate, Real) or not 1 <= sample_rate <= 1 << 30:
        raise AudioError(f"{path}: expected a sample_rate in Hz, at least 1, got {sample_rate!r}")
    return Path(path), int(sample_rate)


def sound_seconds(path: str | PathLike[str]) -> float:
    """How long a sound file is, from its header where that can be trusted, otherwise by decoding it.

    Raises:
        AudioError: as of `load_audio`.
    """
    path = Path(path)
    with _opened(path) as sound:
        if sound.frames is not None:
            return sound.frames / sound.rate
        if not path.is_file():  # a pipe cannot be opened again
            return _count(sound) / sound.rate
    return _decoded_seconds(path, path.stat().st_mtime_ns)


def _number(seconds: float, rate: int) -> int:
    """Which sample it is; times beyond any sound are as good as each other."""
    return round(min(seconds * rate, 2.0**60))


@contextmanager
def _opened(path: Path, only_beginning: bool = False, live: bool = False) -> Iterator[SndFile | FFmpegFile]:
    """A sound of any kind; what is wrong with it is an AudioError that names it."""
    try:
        with open_source(path, only_beginning, live) as source:
            is_file = str(path) != STANDARD_INPUT and path.is_file()
            if not length_of(source):
                raise Unreadable("not a sound file but empty, 0 bytes; copy it again or leave it out")
            try:
                sound: SndFile | FFmpegFile = SndFile(source, path if is_file else None)
            except NotLibsndfiles as error:
                if isinstance(source, LivePipe):
                    source.refuse()
                if not formats_installed():
                    if needs_ffmpeg(path, source):
                        raise Unreadable(
                            "of a kind that libsndfile does not read; pip install 'fastloaa[formats]', or convert it "
                            "to wav, flac or ogg"
                        ) from error
                    raise Unreadable(
                        f"not a sound file that libsndfile reads ({error}); convert it to wav, flac or ogg"
                    ) from error
                sound = FFmpegFile(source)
            try:
                if not 1_000 <= sound.rate <= 1_000_000:
                    raise Unreadable(f"its header says {sound.rate} Hz, expected 1 kHz to 1 MHz; correct the header")
                yield sound
            finally:
                sound.close()
    except Unreadable as error:
        raise AudioError(f"{path}: {error}") from error
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror or error}); copy it again") from error


def _samples(sound: SndFile | FFmpegFile, first: int, end: int | None) -> Tensor:
    """Samples number `first` to before `end`, or to the end of the sound: float32 `[samples]`, samples >= 1."""
    if end is None and sound.frames is not None and sound.frames - first >= LONGEST:
        raise Unreadable(f"declares {sound.frames} samples, {_TOO_MANY}")
    parts, count = [], 0
    for part in _finite(sound, first, end):
        parts.append(part)
        count += len(part)
        if count >= LONGEST:
            raise Unreadable(f"is longer than {count} samples, {_TOO_MANY}")
    if not count and first:
        raise Unreadable(
            f"ends after {sound.end / sound.rate:g} s, expected sound from {first / sound.rate:g} s; correct the times"
        )
    if not count:
        raise Unreadable(_NO_SAMPLES)
    return torch.cat(parts)[: None if end is None else end - first]


def _finite(sound: SndFile | FFmpegFile, first: int, end: int | None, size: int | None = None) -> Iterator[Tensor]:
    """`blocks` of numbers alone."""
    at = first
    for part in sound.blocks(first, end, size):
        finite = part.isfinite()
        if not finite.all():
            seconds = (at + int(finite.int().argmin())) / sound.rate
            raise Unreadable(
                f"holds NaN or infinite samples, the first at {seconds:.6g} s; write it again with samples "
                "between -1 and 1"
            )
        at += len(part)
        yield part


@lru_cache(maxsize=100_000)
def _decoded_seconds(path: Path, changed: int) -> float:
    """Counted by decoding, once for each version of a file."""
    with _opened(path) as sound:
        return _count(sound) / sound.rate


def _count(sound: SndFile | FFmpegFile) -> int:
    return sum(map(len, sound.blocks(0)))
