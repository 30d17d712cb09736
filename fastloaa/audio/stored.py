"""Log-mel spectrograms that somebody else has computed and kept as NumPy arrays."""

import math
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastloaa.audio.decode import LONGEST, AudioError
from fastloaa.audio.formats import suffix
from fastloaa.audio.stored_front_end import LOG_MEL_RATE

LOG_MEL_SUFFIXES = frozenset({".npy", ".npz"})
MOST_BINS = 256
"""Mel bins of a stored spectrogram are fewer or as many: more are frames, in an array that lies the other way."""
_NAME = "log_mel"  # of the array in an .npz of several
_STRETCH = 4096  # frames that are read at a time


def is_log_mel(path: str | PathLike[str]) -> bool:
    """Whether a file's name is that of a stored spectrogram; the file itself is not looked at."""
    return suffix(path) in LOG_MEL_SUFFIXES


class LogMelStream(Iterator[Tensor]):
    """A stored spectrogram stretch by stretch, as an `AudioStream` is a sound block by block.

    Of an `.npy` no more than a stretch is in memory, of an `.npz` all of it.

    Args:
        path: of the file, which is opened when the first stretch is asked for.
        mel_bins: what it must have.
        rate: frames a second.

    Attributes:
        path: as a Path.
        seconds: how much has been read, by the rate; at the end, how long the spectrogram is.

    Yields:
        Stretches that follow each other, float32 `[frames, mel_bins]`, frames >= 1.

    Raises:
        AudioError: another kind of file or number of mel bins, or as of `load_log_mel`, when reading gets there.
    """

    def __init__(self, path: str | PathLike[str], mel_bins: int, rate: int = LOG_MEL_RATE) -> None:
        self.path, self._mel_bins, self._rate = Path(path), mel_bins, rate
        self.seconds = 0.0
        self._stretches = self._read()

    def __next__(self) -> Tensor:
        return next(self._stretches)

    def close(self) -> None:
        """Read no further."""
        self._stretches.close()

    def _read(self) -> Generator[Tensor, None, None]:
        if not is_log_mel(self.path):
            raise AudioError(f"{self.path}: the model reads log-mels (.npy, .npz), as it was trained on, and no sounds")
        frames, mel_bins = log_mel_shape(self.path)
        if mel_bins != self._mel_bins:
            raise AudioError(f"{self.path}: has {mel_bins} mel bins, the model was trained on {self._mel_bins}")
        step = frames if _is_archive(self.path) else _STRETCH
        for first in range(0, frames, step):
            stretch = load_log_mel(self.path, first, first + step)
            self.seconds = (first + len(stretch)) / self._rate
            yield stretch


def log_mel_shape(path: str | Path) -> tuple[int, int]:
    """(frames, mel bins) of a stored spectrogram, from the header of its file.

    Raises:
        AudioError: as `load_log_mel`, but for values.
    """
    path = Path(path)
    with _understanding(path):
        if _is_archive(path):
            with zipfile.ZipFile(path) as archive, archive.open(_member(path, archive)) as file:
                return _checked(path, *_header(file))
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        return _checked(path, array.shape, array.dtype)


def load_log_mel(path: str | Path, first: int = 0, end: int | None = None) -> Tensor:
    """A stretch of a stored spectrogram, float32 `[frames, mel_bins]`.

    Of an `.npy` only the stretch is read (it is memory-mapped); an `.npz` is decompressed as a whole. An `.npz` holds
    one array, or one that is called `log_mel`. Nothing is unpickled.

    Args:
        first, end: in frames; what lies beyond the end is missing from the result.

    Raises:
        AudioError: missing, damaged or of objects; not `[frames, mel_bins]` in floating point with at least one frame
            and at most `MOST_BINS` bins; NaN or infinite values; or one that ends before `first`.
    """
    path = Path(path)
    shape = log_mel_shape(path)
    if first >= shape[0]:
        raise AudioError(f"{path}: has {shape[0]} frames, expected more than {first}; correct the times")
    with _understanding(path):
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded, zipfile.ZipFile(path) as archive:
                loaded = loaded[_member(path, archive)]
        with np.errstate(over="ignore"):  # infinite, which is said below
            values = torch.from_numpy(np.array(loaded[first:end], dtype=np.float32))
    if not values.isfinite().all():
        raise AudioError(f"{path}: holds NaN or infinite values; a logarithm of zero? write it again with a floor")
    return values


def _is_archive(path: Path) -> bool:
    """Whether a file is a zip, by what is in it, as NumPy goes: names are given by hand."""
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def _member(path: Path, archive: zipfile.ZipFile) -> str:
    """The file of the spectrogram in an `.npz`, which NumPy knows by this name as well as without its suffix."""
    names = [name for name in archive.namelist() if name.endswith(".npy")]
    if f"{_NAME}.npy" in names:
        return f"{_NAME}.npy"
    if len(names) != 1:
        held = ", ".join(name.removesuffix(".npy") for name in names[:5]) or "none"
        raise AudioError(f"{path}: holds the arrays {held}; expected one, or one that is called {_NAME}")
    return names[0]


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of an array in NumPy's format."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _checked(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, int]:
    if dtype.kind != "f":
        raise AudioError(f"{path}: holds {dtype}, expected a log-mel in floating point")
    if len(shape) != 2 or not all(shape):
        advice = "; take the axis of channels away" if len(shape) == 3 and 1 in shape else ""
        raise AudioError(f"{path}: holds an array of shape {list(shape)}, expected [frames, mel_bins]{advice}")
    if shape[1] > MOST_BINS:
        raise AudioError(
            f"{path}: holds an array of shape {list(shape)}, expected [frames, mel_bins] with at most {MOST_BINS} mel "
            "bins; if it lies the other way, save array.T"
        )
    if math.prod(shape) > LONGEST:
        raise AudioError(f"{path}: says that it holds {math.prod(shape):,} values; expected at most {LONGEST:,}")
    return shape[0], shape[1]


@contextmanager
def _understanding(path: Path) -> Iterator[None]:
    """One kind of error for whatever NumPy and the parts it uses say of a file.

    Raises:
        AudioError: in their place.
    """
    try:
        yield
    except AudioError:
        raise
    except FileNotFoundError as error:
        raise AudioError(f"{path}: no such file; check the path") from error
    except (ArithmeticError, EOFError, LookupError, OSError, SyntaxError, ValueError, zipfile.BadZipFile) as error:
        what = "not an array of numbers in NumPy's format"
        raise AudioError(f"{path}: {what} ({_line(error)}); write it again") from error
    except (MemoryError, NotImplementedError, RuntimeError, TypeError, UnicodeError, zlib.error) as error:
        raise AudioError(f"{path}: damaged ({_line(error)}); write it again") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
