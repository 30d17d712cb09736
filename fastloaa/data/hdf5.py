"""Sound in HDF5 files as EPIC-KITCHENS keeps it: a dataset of float32 samples per video, mono at 24 kHz.

Such a file is what `wav_to_hdf5.py` of https://github.com/ekazakos/auditory-slow-fast writes.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastloaa.audio.decode import AudioError
from fastloaa.extras import optional

RATE = 24_000
"""Sampling rate in Hz; the files do not say it."""


def hdf5_tracks(path: Path) -> dict[str, float]:
    """The sounds in a file: name -> length in seconds.

    Raises:
        AudioError: missing, or not an HDF5 file.
        MissingPackageError: h5py is not installed.
    """
    with _open(path) as file:
        return {name: len(dataset) / RATE for name, dataset in file.items() if getattr(dataset, "ndim", 0) == 1}


def read_hdf5(path: Path, track: str, start: float = 0.0, stop: float | None = None) -> Tensor:
    """A segment of one sound, float32 `[samples]` at `RATE`; only the segment is read.

    Args:
        track: the name of the dataset.
        start, stop: in seconds; what lies beyond the end is missing from the result.

    Raises:
        AudioError: missing, not an HDF5 file, without this sound, or damaged; samples that are not one row of finite
            floating-point numbers; or a sound that ends before `start`.
        MissingPackageError: h5py is not installed.
    """
    with _open(path) as file:
        dataset = file.get(track)
        if getattr(dataset, "ndim", 0) != 1 or dataset.dtype.kind != "f":
            raise AudioError(
                f"{path}: no sound {track!r} in it; expected a dataset of that name, floating point [samples]"
            )
        first, end = round(start * RATE), len(dataset) if stop is None else round(stop * RATE)
        if first >= len(dataset):
            seconds = len(dataset) / RATE
            raise AudioError(
                f"{path}[{track}]: ends after {seconds:g} s, expected more than {start:g} s; correct the times"
            )
        try:
            samples = torch.from_numpy(dataset[first:end].astype("float32"))
        except OSError as error:
            raise AudioError(f"{path}[{track}]: damaged ({error}); copy it again") from error
    if not samples.isfinite().all():
        raise AudioError(f"{path}[{track}]: holds NaN or infinite samples; write it again")
    return samples


def _open(path: Path) -> Any:
    """The file, to be used in a `with`: opened for each reading, since workers must not share a handle."""
    h5py = optional("h5py")
    if not path.is_file():
        raise AudioError(f"{path}: no such file; check the path")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise AudioError(f"{path}: not an HDF5 file, or a damaged one; copy it again") from error
