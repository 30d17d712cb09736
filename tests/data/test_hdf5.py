"""Sound in HDF5 files."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torchaudio.functional import resample

from fastloaa.audio import AudioError
from fastloaa.data import Clip, clip_seconds, read_clip
from fastloaa.data.hdf5 import hdf5_tracks, read_hdf5

SAMPLES = np.linspace(-1, 1, 2400, dtype=np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with 0.1 s of sound, and what is no sound."""
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["sound"] = SAMPLES
        file["double"] = SAMPLES.astype(np.float64)
        file["whole numbers"] = np.zeros(9, dtype=np.int16)
        file["stereo"] = np.zeros((2, 9), dtype=np.float32)
        file["nan"] = np.array([0.0, np.nan], dtype=np.float32)
        file.create_group("group")
    return tmp_path / "a.hdf5"


def test_tracks_are_rows_of_samples(path: Path) -> None:
    tracks = hdf5_tracks(path)
    assert tracks["sound"] == 0.1
    assert "stereo" not in tracks
    assert "group" not in tracks


@pytest.mark.parametrize("track", ["sound", "double"])
@pytest.mark.parametrize(("start", "stop", "first", "end"), [(0.0, None, 0, 2400), (0.025, 0.05, 600, 1200)])
def test_segments_are_exact(path: Path, track: str, start: float, stop: float | None, first: int, end: int) -> None:
    samples = read_hdf5(path, track, start, stop)
    assert samples.dtype == torch.float32
    np.testing.assert_array_equal(samples, SAMPLES[first:end])


def test_a_segment_ends_with_the_sound(path: Path) -> None:
    np.testing.assert_array_equal(read_hdf5(path, "sound", 0.05, 9.0), SAMPLES[1200:])


@pytest.mark.parametrize(
    ("track", "message"),
    [
        ("gone", "no sound 'gone' in it"),
        ("stereo", "no sound 'stereo' in it"),
        ("whole numbers", "no sound 'whole numbers' in it"),
        ("group", "no sound 'group' in it"),
        ("nan", "holds NaN or infinite samples"),
    ],
)
def test_what_is_no_sound_is_named(path: Path, track: str, message: str) -> None:
    with pytest.raises(AudioError, match=message) as error:
        read_hdf5(path, track)
    assert str(error.value).startswith(str(path))


def test_a_segment_beyond_the_end_is_named(path: Path) -> None:
    with pytest.raises(AudioError, match=r"a\.hdf5\[sound\]: ends after 0\.1 s, expected more than 0\.1 s"):
        read_hdf5(path, "sound", 0.1, 0.2)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"gone\.hdf5: no such file"):
        read_hdf5(tmp_path / "gone.hdf5", "sound")


def test_clips_are_resampled(path: Path) -> None:
    found = read_clip(Clip(path, (0,), start=0.025, stop=0.05, track="sound"), 16000)
    torch.testing.assert_close(found, resample(torch.from_numpy(SAMPLES[600:1200]), 24000, 16000))


def test_lengths_come_from_the_header(path: Path) -> None:
    assert clip_seconds(Clip(path, (0,), track="sound")) == 0.1
    assert clip_seconds(Clip(path, (0,), start=0.025, track="sound")) == pytest.approx(0.075)
    with pytest.raises(AudioError, match=r"no sound 'gone' in it; it has 4 others$"):
        clip_seconds(Clip(path, (0,), track="gone"))
