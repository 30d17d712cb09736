"""Clips of sound files; those of HDF5 files are in test_hdf5.py."""

from pathlib import Path

import pytest
import torch

from fastloaa.audio import AudioError, load_audio
from fastloaa.data import Clip, clip_seconds, read_clip
from helpers.tones import write_tone


def test_a_segment_is_cut_out_of_its_recording(tmp_path: Path) -> None:
    path = write_tone(tmp_path / "a.flac", seconds=0.5)
    found = read_clip(Clip(path, (0,), start=0.1, stop=0.3))
    assert torch.equal(found, load_audio(path)[1600:4800])


def test_lengths_come_from_the_header(tmp_path: Path) -> None:
    path = write_tone(tmp_path / "a.wav", seconds=0.5, rate=8000)
    assert clip_seconds(Clip(path, (0,))) == 0.5
    assert clip_seconds(Clip(path, (0,), start=0.125)) == 0.375
    assert clip_seconds(Clip(path, (0,), start=0.125, stop=0.25)) == 0.125


@pytest.mark.parametrize(
    ("name", "message"),
    [("gone.wav", "no such file"), ("text.wav", "not a sound file"), ("text.raw", "not a sound file")],
)
def test_a_header_that_cannot_be_read_is_an_error(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "text.raw").write_text("no sound")
    with pytest.raises(AudioError, match=rf"{name}: {message}"):
        clip_seconds(Clip(tmp_path / name, (0,)))
