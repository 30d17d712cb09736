"""Sounds block by block: the same samples as at once, of recordings of any length and of those that have no end."""

import contextlib
import io
import itertools
import os
import sys
import threading
import tracemalloc
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from fastloaa.audio import AudioError, AudioStream, load_audio, sndfile, sources
from fastloaa.audio.resample import resample, resampled_blocks
from helpers.sounds import encoded, noise, wav_with_sizes
from helpers.versions import skip_before


@pytest.mark.parametrize(
    "rates", [(16000, 16000), (44_100, 16_000), (8000, 16_000), (16_000, 44_100), (44_101, 16_000)]
)
@pytest.mark.parametrize("sizes", [[1], [7, 1000, 1], [20_000], [10**6]], ids=str)
def test_blocks_are_resampled_as_the_whole(rates: tuple[int, int], sizes: list[int]) -> None:
    samples = torch.from_numpy(noise(3011 if sizes == [1] else 50_011)).float()
    cuts = itertools.accumulate(itertools.cycle(sizes))
    edges = [0, *itertools.takewhile(lambda edge: edge < len(samples), cuts), len(samples)]
    blocks = list(resampled_blocks((samples[a:b] for a, b in itertools.pairwise(edges)), *rates))
    torch.testing.assert_close(torch.cat(blocks), resample(samples, *rates), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("rate", [16000, 44_100])
def test_a_stream_is_the_file(kind: str, rate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks of a size of their own, whatever the decoder makes of it."""
    soundfile.write(tmp_path / f"a.{kind}", noise(3 * rate + 7, channels=2), rate)
    whole = load_audio(tmp_path / f"a.{kind}")
    monkeypatch.setattr(sndfile, "BLOCK", 10_000)
    stream = AudioStream(tmp_path / f"a.{kind}")
    blocks = list(stream)
    assert all(1 <= len(block) <= 10_000 for block in blocks)
    torch.testing.assert_close(torch.cat(blocks), whole, atol=1e-6, rtol=0)
    assert stream.seconds == pytest.approx(soundfile.info(tmp_path / f"a.{kind}").duration, abs=1e-9)


def test_what_is_wrong_is_said_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sndfile, "BLOCK", 10_000)
    samples = noise(90_000)
    soundfile.write(tmp_path / "none.wav", samples[:0], 16000)
    soundfile.write(tmp_path / "cut.flac", samples, 16000)
    content = (tmp_path / "cut.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(content[: len(content) // 2])
    samples[80_000] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, 16000, subtype="FLOAT")
    for name, least in (("none.wav", 0), ("nan.wav", 80_000), ("cut.flac", 30_000), ("missing.wav", 0)):
        with pytest.raises(AudioError) as of_whole:
            load_audio(tmp_path / name)
        came, stream = list[int](), AudioStream(tmp_path / name)

        def read(stream: AudioStream, came: list[int]) -> None:
            came += map(len, stream)

        with pytest.raises(AudioError) as of_stream:
            read(stream, came)
        assert str(of_stream.value) == str(of_whole.value)
        assert sum(came) >= least
        assert name != "nan.wav" or "the first at 5 s;" in str(of_stream.value)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_stream_that_is_left(tmp_path: Path) -> None:
    """Closes its file, also where nothing was asked for."""
    soundfile.write(tmp_path / "a.wav", noise(10**6), 16000)
    before = open_files()
    stream = AudioStream(tmp_path / "a.wav")
    next(stream)
    assert open_files() > before
    stream.close()
    AudioStream(tmp_path / "a.wav").close()
    assert open_files() == before


class Microphone:
    """What writes into standard input, while the test reads from it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        reading, self._writing = os.pipe()
        self.stdin = os.fdopen(reading)
        monkeypatch.setattr(sys, "stdin", self.stdin)

    def write(self, content: bytes) -> None:
        """At most the 64 KiB that a pipe holds."""
        assert os.write(self._writing, content) == len(content)

    def end(self) -> None:
        os.close(self._writing)


SIZES = [(0, 0), (0xFFFFFFFF, 0xFFFFFFFF), (0x7FFFFFFF, 0x7FFFFFFF - 36), (0x80000024, 0x80000000)]
"""What ffmpeg, sox, arecord and others write into the header of a wav whose length they do not know."""


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT", "ULAW"])
def test_a_live_wav(sizes: tuple[int, int], subtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written is there before anything more is, and the end is no mistake."""
    whole = encoded(noise(4000, channels=2), 8000, "WAV", subtype)
    expected = soundfile.read(io.BytesIO(whole), dtype="float32")[0].mean(1)
    begin = whole.index(b"data") + 8
    content = wav_with_sizes(whole, *sizes)
    samples = content[begin:]
    tenth = len(samples) // 5
    microphone = Microphone(monkeypatch)
    microphone.write(content[:begin])
    stream, came = AudioStream("-", 8000, live=0.1), []
    for number in range(4):
        microphone.write(samples[number * tenth :][:tenth])
        came.append(next(stream))
        assert len(came[-1]) == 800
        assert stream.seconds == pytest.approx((number + 1) / 10)
    microphone.write(samples[4 * tenth : -len(samples) // 20])
    microphone.end()
    came += stream
    np.testing.assert_array_equal(torch.cat(came), expected[:3800])


def test_live_sounds_of_other_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, subtype in (("FLAC", None), ("AU", None), ("WAV", None), ("RF64", None)):
        content = encoded(noise(8000), 16000, kind, subtype)
        microphone = Microphone(monkeypatch)
        microphone.write(content)
        microphone.end()
        expected = soundfile.read(io.BytesIO(content), dtype="float32")[0]
        np.testing.assert_array_equal(torch.cat(list(AudioStream("-", live=0.1))), expected)
    for kind, subtype in (("OGG", None), ("MP3", None), ("WAV", "IMA_ADPCM"), ("WAV", "MS_ADPCM")):
        content = encoded(noise(8000), 16000, kind, subtype)
        microphone = Microphone(monkeypatch)
        microphone.write(wav_with_sizes(content, 0xFFFFFFFF, 0xFFFFFFFF) if kind == "WAV" else content)
        with pytest.raises(AudioError, match="-: cannot be heard while it arrives, as wav of PCM, au and flac can"):
            next(AudioStream("-", live=0.1))
        microphone.end()


@pytest.mark.parametrize("subtype", ["PCM_16", "IMA_ADPCM", "MS_ADPCM"])
def test_a_segment_beyond_the_end_of_a_wav_without_a_length(subtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing there is missing from the result."""
    if subtype == "IMA_ADPCM":
        skip_before("av", "18", "rounds what it decodes of it in another way than libsndfile")
    content = encoded(noise(8000), 16000, "WAV", subtype)
    microphone = Microphone(monkeypatch)
    microphone.write(wav_with_sizes(content, 0xFFFFFFFF, 0xFFFFFFFF))
    microphone.end()
    expected = soundfile.read(io.BytesIO(content), dtype="float32")[0]
    np.testing.assert_array_equal(load_audio("-", 16000, 0.1, 99), expected[1600:])


def test_a_pipe_need_not_know_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """No warning, as of a file whose recorder was cut off."""
    for sizes in SIZES:
        microphone = Microphone(monkeypatch)
        microphone.write(wav_with_sizes(encoded(noise(8000), 16000, "WAV"), *sizes))
        microphone.end()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(load_audio("-")) == 8000


def test_a_live_wav_that_declares_its_length_ends_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """And where less comes, it was cut."""
    content = encoded(noise(8000), 16000, "WAV")
    microphone = Microphone(monkeypatch)
    microphone.write(content + bytes(8000))
    assert sum(map(len, AudioStream("-", live=0.1))) == 8000
    microphone.end()
    microphone = Microphone(monkeypatch)
    microphone.write(content[:-8000])
    microphone.end()
    with pytest.raises(AudioError, match="truncated or damaged, 4000 of 8000 samples"):
        list(AudioStream("-", live=0.1))


def test_a_live_sound_goes_on_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond what a header can declare and a pipe may keep, in the memory of a moment."""
    monkeypatch.setattr(sources, "LONGEST_PIPE", 1 << 16)
    monkeypatch.setattr(sources, "REMEMBERED", 1 << 16)
    content = wav_with_sizes(encoded(noise(8000), 16000, "WAV"), 0xFFFFFFFF, 0xFFFFFFFF)
    os.mkfifo(tmp_path / "pipe")

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), (tmp_path / "pipe").open("wb") as file:
            file.write(content)
            while True:
                file.write(bytes(1 << 16))

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    stream = AudioStream(tmp_path / "pipe", live=1)
    next(stream)
    tracemalloc.start()
    for _ in itertools.takewhile(lambda _: stream.seconds < 600, stream):  # 19 MB
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 << 20
    stream.close()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.slow
def test_beyond_what_a_header_can_declare(monkeypatch: pytest.MonkeyPatch) -> None:
    """4 GiB; of eight channels of eight bytes, so that these are soon read."""
    content = wav_with_sizes(encoded(noise(100, channels=8), 16000, "WAV", "DOUBLE"), 0xFFFFFFFF, 0xFFFFFFFF)
    length = (4 << 30) + (64 << 20)

    class Zeros(io.RawIOBase):
        """What follows the content."""

        at = 0

        def read(self, size: int = -1) -> bytes:
            size = min(size, length - self.at)
            part = content[self.at :][:size]
            self.at += size
            return part + bytes(size - len(part))

    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=Zeros(), closed=False, isatty=lambda: False))
    stream = AudioStream("-", live=600)
    for _ in stream:
        pass
    assert stream.seconds * 16_000 == pytest.approx(length / 64, abs=10)
