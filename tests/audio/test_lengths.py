"""Files whose header tells less, more or something else than they hold: what decodes is their length."""

import os
import re
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from fastloaa.audio import AudioError, AudioWarning, decode, load_audio
from fastloaa.audio.decode import sound_seconds
from helpers.sounds import (
    encoded,
    flac_of_length,
    loud_then_quiet,
    mp3_in_wav,
    mp3_of_variable_rate,
    noise,
    replaced,
    wav_with_sizes,
    without_first_frame,
)

UNKNOWN = 0xFFFFFFFF
RATE = 44100
SECONDS = 4


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes], Path]:
    def write(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


Write = Callable[[str, bytes], Path]


class Forwards(soundfile.SoundFile):
    """soundfile's reading without its seek to where it is already."""

    def seekable(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [
        ("WAV", "GSM610"),
        ("AIFF", "GSM610"),
        ("W64", "GSM610"),
        ("WAV", "G721_32"),
        ("AU", "G721_32"),
        ("AU", "G723_24"),
        ("AU", "G723_40"),
        ("WAV", "NMS_ADPCM_16"),
        ("WAV", "NMS_ADPCM_24"),
        ("WAV", "NMS_ADPCM_32"),
        ("XI", "DPCM_8"),
        ("XI", "DPCM_16"),
        ("AIFF", "DWVW_16"),  # says that it can seek, and then cannot
        ("AIFF", "DWVW_24"),
        ("SDS", "PCM_16"),  # declares some samples more than it has
        ("SDS", "PCM_24"),
    ],
)
def test_codecs_that_only_run_forwards(kind: str, subtype: str, write: Write) -> None:
    path = write("a.sound", encoded(0.5 * np.sin(np.arange(10_000) * 0.3), 8000, kind, subtype))
    with Forwards(path) as file:
        rate, expected = file.samplerate, file.read(out=np.empty(20_000, dtype="float32"))
    whole = load_audio(path, rate)
    np.testing.assert_array_equal(whole, expected)
    assert len(whole) >= 9_960
    second = load_audio(path, rate, 4000 / rate, 7000 / rate)
    assert torch.equal(second, whole[4000:7000])
    assert sound_seconds(path) * rate == pytest.approx(len(whole), abs=40)


@pytest.mark.parametrize(
    ("riff", "data"),
    [
        (0, 0),
        (None, 0),
        (UNKNOWN, 0),
        (8, 0),
        (0, UNKNOWN),
        (None, UNKNOWN),
        (UNKNOWN, UNKNOWN),
        (0x7FFFF024, 0x7FFFF000),  # sox to a pipe
        (0x80000024, 0x80000000),  # arecord
        (0, 1000),  # brought up to date once, long ago
    ],
)
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "MS_ADPCM", "GSM610"])
def test_a_wav_that_was_never_finished_is_read_with_a_note(riff: int, data: int, subtype: str, write: Write) -> None:
    content = encoded(noise(9001), 8000, "WAV", subtype)
    expected = load_audio(write("whole.wav", content), 8000)
    path = write("a.wav", wav_with_sizes(content, riff, data))
    with pytest.warns(AudioWarning, match=r"a\.wav: the header was never finished; everything behind it is read$"):
        found = load_audio(path, 8000)
    assert torch.equal(found[: len(expected)], expected)
    assert len(found) - len(expected) <= (0 if subtype != "PCM_24" else 1)
    assert sound_seconds(path) == pytest.approx(len(expected) / 8000, abs=1e-3)


def test_a_size_of_the_whole_that_is_zero_does_not_matter(write: Write) -> None:
    path = write("a.wav", wav_with_sizes(encoded(noise(9001), 8000, "WAV"), 0, None))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_audio(path, 8000)) == 9001


@pytest.mark.parametrize("kind", ["AU", "CAF", "RF64", "W64", "AIFF"])
@pytest.mark.parametrize("size", [0, -1])
def test_other_containers_that_were_never_finished(kind: str, size: int, write: Write) -> None:
    content = encoded(noise(9000), 8000, kind, "PCM_16")
    name, behind, field = {
        "AU": (b".snd", 8, ">i"),
        "CAF": (b"data", 4, ">q"),
        "RF64": (b"ds64", 16, "<q"),
        "W64": (b"data", 16, "<q"),
        "AIFF": (b"SSND", 4, ">i"),
    }[kind]
    place = content.rindex(name, 0, 4200) + behind
    path = write("a.sound", replaced(content, place, field, size))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AudioWarning)
        assert torch.equal(load_audio(path, 8000), load_audio(write("whole.sound", content), 8000))


def test_chunks_behind_no_samples_are_no_sound(write: Write) -> None:
    content = wav_with_sizes(encoded(np.zeros(0), 8000, "WAV"), None, 0) + b"LIST\x04\0\0\0INFO"
    with pytest.raises(AudioError, match=r"holds no samples"):
        load_audio(write("a.wav", content))


@pytest.mark.parametrize("behind", ["second recording", "samples"])
def test_what_a_finished_wav_does_not_declare_is_named(behind: str, write: Write) -> None:
    content = encoded(noise(9000), 8000, "WAV")
    content += content if behind == "second recording" else content[44:]
    with pytest.warns(AudioWarning, match=r"180\d\d bytes behind the samples that its header declares are left out"):
        assert len(load_audio(write("a.wav", content), 8000)) == 9000


def test_tags_behind_the_samples_go_without_saying(write: Write) -> None:
    content = encoded(noise(9000), 8000, "WAV")
    tags = b"id3 " + (10_000).to_bytes(4, "little") + b"ID3\x03" + bytes(9996)
    for behind in (tags, b"TAG" + bytes(125), bytes(100)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(load_audio(write("a.wav", content + behind), 8000)) == 9000


@pytest.mark.parametrize(("declared", "left"), [(0, 1 << 31), (200_000, (1 << 32) + (1 << 31) - 200_001)])
def test_sizes_that_began_again_from_zero_at_four_gibibytes(declared: int, left: int, tmp_path: Path) -> None:
    """A file with a hole, which takes no space; libsndfile reads no more than the sizes can say."""
    content = encoded(noise(8000), 8000, "WAV")
    path = tmp_path / "a.wav"
    with path.open("wb") as file:
        file.write(wav_with_sizes(content, declared + 36, declared))
        file.truncate(44 + (1 << 32) - 1 + (1 << 31))
    with pytest.warns(
        AudioWarning, match=rf"a\.wav: .*{left} bytes behind the samples that its header declares are left"
    ):
        assert len(load_audio(path, 8000, 0.0, 1.0)) == 8000


def test_what_is_too_long_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with path.open("wb") as file:
        file.write(wav_with_sizes(encoded(noise(8000), 8000, "WAV"), 36 + (1 << 31), 1 << 31))
        file.truncate(44 + (1 << 31))
    assert len(load_audio(path, 8000, 60.0, 61.0)) == 8000
    message = r"declares 1073741824 samples, too many to read at once; read it in segments, by start and stop$"
    with pytest.raises(AudioError, match=message):
        load_audio(path)


@pytest.mark.parametrize("declared", [0, 1, 5000, 9999])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_flac_that_does_not_know_its_length(declared: int, channels: int, write: Write) -> None:
    content = encoded(noise(10_000, channels), 16000, "FLAC")
    expected = load_audio(write("whole.flac", content), 16000)
    path = write("a.flac", flac_of_length(content, declared))
    assert torch.equal(load_audio(path, 16000), expected)
    assert torch.equal(load_audio(path, 16000, 0.25, 0.5), expected[4000:8000])
    assert torch.equal(load_audio(path, 16000, 0.5), expected[8000:])
    with pytest.raises(AudioError, match=r"ends after 0\.625 s, expected sound from 0\.625 s"):
        load_audio(path, 16000, 0.625)
    if not declared:
        assert sound_seconds(path) == 0.625


@pytest.mark.parametrize("declared", [10_001, 20_000, 1 << 29])
def test_a_flac_that_lacks_what_it_declares_is_cut(declared: int, write: Write) -> None:
    path = write("a.flac", flac_of_length(encoded(noise(10_000), 16000, "FLAC"), declared))
    with pytest.raises(AudioError, match=rf"truncated or damaged, 10000 of {declared} samples; copy it again$"):
        load_audio(path)


@pytest.fixture(scope="module")
def mp3() -> bytes:
    """Four seconds of variable rate that begin with a frame that tells the length."""
    return mp3_of_variable_rate(loud_then_quiet(RATE, SECONDS), RATE)


ID3 = b"ID3\x04\0\0\0\0\x10\0" + bytes(2048)  # a title, empty


@pytest.mark.parametrize(
    ("make", "times", "padding"),
    [
        (lambda mp3: mp3, 1, 0),
        (lambda mp3: ID3 + mp3, 1, 0),
        (lambda mp3: mp3 + b"TAG" + bytes(125), 1, 0),
        (without_first_frame, 1, 1),
        (lambda mp3: ID3 + without_first_frame(mp3), 1, 1),
        (lambda mp3: without_first_frame(mp3) + b"TAG" + bytes(125), 1, 1),
        (lambda mp3: bytes(300) + without_first_frame(mp3), 1, 1),
        (lambda mp3: mp3 + mp3, 2, 2),
        (lambda mp3: without_first_frame(mp3) * 3, 3, 3),
        (lambda mp3: ID3 + mp3 + ID3 + mp3, 2, 2),
        (lambda mp3: mp3_in_wav(mp3, RATE), 1, 0),
        (lambda mp3: mp3_in_wav(mp3, RATE, RATE * SECONDS), 1, 0),
        (lambda mp3: mp3_in_wav(mp3, RATE, 100), 1, 0),
        (lambda mp3: mp3_in_wav(mp3, RATE, 10**7), 1, 0),
        (lambda mp3: mp3_in_wav(without_first_frame(mp3), RATE), 1, 1),
        (lambda mp3: mp3_in_wav(without_first_frame(mp3), RATE, 0), 1, 1),
        (lambda mp3: wav_with_sizes(mp3_in_wav(without_first_frame(mp3), RATE), 0, UNKNOWN), 1, 1),
    ],
)
def test_no_mp3_is_cut_to_a_guess(make: Callable, times: int, padding: int, mp3: bytes, write: Write) -> None:
    """Where nothing tells what the encoder filled up, up to three frames of it come with each part."""
    path = write("a.mp3", make(mp3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AudioWarning)
        whole = load_audio(path, RATE)
        part = load_audio(path, RATE, 3.0, 3.5)
    extra = len(whole) - times * RATE * SECONDS
    assert 0 <= extra <= padding * 3 * 1152
    assert sound_seconds(path) * RATE == len(whole)
    np.testing.assert_allclose(part, whole[3 * RATE : RATE * 7 // 2], atol=1e-6)
    # As loud as what was encoded, in every part.
    power = whole[: times * RATE * SECONDS].reshape(times, 2, -1).square().mean(-1)
    assert power[:, 0].min() > 0.1
    assert power[:, 1].max() < 0.05


@pytest.mark.parametrize("headless", [False, True])
def test_a_hole_in_an_mp3_is_named(headless: bool, mp3: bytes, write: Write) -> None:
    content = without_first_frame(mp3) if headless else mp3
    with pytest.raises(AudioError, match=r"truncated or damaged .*; copy it again$"):
        load_audio(write("a.mp3", content[:20_000] + bytes(5000) + content[20_000:]))


@pytest.mark.parametrize("headless", [False, True])
def test_a_cut_mp3_is_a_short_recording(headless: bool, mp3: bytes, write: Write) -> None:
    content = without_first_frame(mp3) if headless else mp3
    path = write("a.mp3", content[: len(content) // 2])
    whole = load_audio(path, RATE)
    assert 0.2 * RATE < len(whole) < SECONDS * RATE
    assert sound_seconds(path) * RATE == pytest.approx(len(whole), abs=3 * 1152)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_times_at_and_beyond_the_end(kind: str, write: Write) -> None:
    path = write("a.sound", encoded(noise(16_000), 16000, kind))
    assert len(load_audio(path, 16000, 0.0, float("inf"))) == len(load_audio(path, 16000, 0.0, 1e300)) == 16_000
    assert len(load_audio(path, 16000, 0.5, 0.5 + 1e-9)) == 1
    for start in (1.0, 1e300):
        with pytest.raises(AudioError, match=r"ends after 1 s, expected sound from .* s; correct the times$"):
            load_audio(path, 16000, start)


def test_a_sound_that_unpacks_to_more_than_is_read_at_once(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("a.flac", flac_of_length(encoded(np.zeros(3_000_000), 16000, "FLAC"), 0))
    monkeypatch.setattr(decode, "LONGEST", 1_000_000)
    with pytest.raises(AudioError, match=r"is longer than \d+ samples, too many to read at once; read it in segments"):
        load_audio(path)
    assert len(load_audio(path, 16000, 10.0, 11.0)) == 16_000


def test_counting_follows_a_file_that_changes(write: Write) -> None:
    for samples in (10_000, 20_000):
        path = write("a.flac", flac_of_length(encoded(noise(samples), 16000, "FLAC"), 0))
        os.utime(path, ns=(samples, samples))
        assert sound_seconds(path) == samples / 16000


ID3V1 = b"TAG" + b"a title".ljust(125, b"\0")


def ape(header: bool) -> bytes:
    """A tag of one item, by the description at wiki.hydrogenaud.io, APEv2."""
    item = struct.pack("<II", 1, 0) + b"Title\0" + b"x"

    def end(is_header: bool) -> bytes:
        flags = (header << 31) | (is_header << 29)
        return b"APETAGEX" + struct.pack("<IIII", 2000, len(item) + 32, 1, flags) + bytes(8)

    return end(True) * header + item + end(False)


@pytest.mark.parametrize("tags", [ID3V1, ape(True), ape(False), ape(True) + ID3V1])
@pytest.mark.parametrize("declared", [9000, 0])
@pytest.mark.parametrize("kind", ["FLAC", "MP3"])
def test_tags_behind_the_sound_are_no_damage(kind: str, declared: int, tags: bytes, write: Write) -> None:
    content = encoded(noise(9000), 8000, kind)
    if kind == "FLAC":
        content = flac_of_length(content, declared)
    expected = load_audio(write("plain", content), 8000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(load_audio(write("tagged", content + tags), 8000), expected)


@pytest.mark.parametrize("title", [b"TAGGED", b"xAPETAGEX", b"APETAGEX" + b"\xff" * 24])
def test_what_only_looks_like_a_tag_is_no_end(title: bytes, write: Write) -> None:
    """A FLAC that is cut there is cut."""
    content = encoded(noise(9000), 8000, "FLAC")
    with pytest.raises(AudioError, match="truncated or damaged"):
        load_audio(write("a.flac", content[: len(content) // 2] + title), 8000)


@pytest.mark.parametrize(("rate", "left"), [(44_100, True), (16_000, False)])
def test_a_second_mp3_of_another_rate_is_named(rate: int, left: bool, write: Write) -> None:
    """Players stop there too; nothing is cut without a word."""
    path = write("a.mp3", encoded(noise(32_000), 16000, "MP3") + encoded(noise(2 * rate), rate, "MP3"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = load_audio(path, 16000)
    assert len(found) == pytest.approx(32_000 if left else 64_000, abs=4000)
    notes = [str(warning.message) for warning in caught]
    assert len(notes) == left
    if left:
        seconds = re.search(r"a\.mp3: (\S+) s of another rate or kind behind its sound are left out", notes[0])
        assert seconds
        assert float(seconds[1]) == pytest.approx(2, abs=0.15)
