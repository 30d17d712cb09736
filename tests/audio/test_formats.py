"""Which names are those of sounds, with PyAV and without."""

from pathlib import Path

import pytest
import soundfile

from fastloaa.audio import formats


@pytest.mark.parametrize(
    "name", ["a.wav", "A.WAV", "a.b.flac", "a.mp3", "a.oga", "a.opus", "dir/a.aif", "a.au", "a.w64"]
)
@pytest.mark.parametrize("installed", [False, True])
def test_what_libsndfile_reads_is_always_readable(name: str, installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "formats_installed", lambda: installed)
    assert formats.is_sound(name)
    assert formats.is_readable(Path(name))


@pytest.mark.parametrize("name", ["a.m4a", "a.AAC", "a.webm", "a.wma", "a.mp4", "a.amr", "a.mkv"])
@pytest.mark.parametrize("installed", [False, True])
def test_others_are_sounds_that_need_the_extra(name: str, installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "formats_installed", lambda: installed)
    assert formats.is_sound(name)
    assert formats.is_readable(name) is installed


@pytest.mark.parametrize(
    "name", ["a", "wav", ".wav", "a.txt", "a.raw", "a.wav.part", "a.png", "a.csv", "a.", "a.wav/b"]
)
def test_other_names_are_no_sounds(name: str) -> None:
    assert not formats.is_sound(name)
    assert not formats.is_readable(name)


def test_every_format_of_libsndfile_is_known() -> None:
    readable = formats.sound_suffixes()
    assert {f".{name.lower()}" for name in soundfile.available_formats()} - {".raw"} <= readable
