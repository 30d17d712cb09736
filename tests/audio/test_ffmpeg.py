"""What libsndfile does not know, against ffmpeg's own program."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from fastloaa.audio import AudioError, decode, load_audio
from fastloaa.audio.decode import sound_seconds
from helpers.sounds import noise

pytest.importorskip("av", reason="needs PyAV: pip install 'fastloaa[formats]'")
imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="needs ffmpeg's program: pip install imageio-ffmpeg")


def ffmpeg(*arguments: str | Path) -> bytes:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True).stdout


def decoded_by_ffmpeg(path: Path, channels: int) -> NDArray[np.float32]:
    """At the file's own rate, channels averaged."""
    samples = np.frombuffer(ffmpeg("-i", path, "-f", "f32le", "-"), dtype="float32")
    return samples.reshape(-1, channels).mean(1)


@pytest.mark.parametrize(
    ("name", "codec", "channels", "rate"),
    [
        ("a.m4a", "aac", 2, 44100),
        ("mono.m4a", "aac", 1, 16000),
        ("lossless.m4a", "alac", 2, 44100),
        ("a.aac", "aac", 2, 22050),
        ("a.mp4", "aac", 6, 48000),
        ("a.3gp", "aac", 1, 16000),
        ("a.mov", "pcm_s24le", 2, 48000),
        ("a.webm", "libopus", 2, 48000),
        ("a.mka", "libvorbis", 1, 44100),
        ("a.mkv", "flac", 8, 192_000),
        ("a.wma", "wmav2", 2, 44100),
        ("old.wma", "wmav1", 1, 22050),
        ("a.amr", "libopencore_amrnb", 1, 8000),
        ("a.ac3", "ac3", 2, 48000),
        ("a.wv", "wavpack", 2, 44100),
        ("a.tta", "tta", 1, 44100),
        ("a.avi", "pcm_u8", 2, 8000),
        ("a.wav", "adpcm_swf", 1, 22050),  # a container that libsndfile knows, with a codec that it does not
    ],
)
def test_the_same_samples_as_ffmpeg(name: str, codec: str, channels: int, rate: int, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "source.wav", noise(rate, channels), rate)
    path = tmp_path / name
    ffmpeg("-i", tmp_path / "source.wav", "-c:a", codec, path)
    expected = decoded_by_ffmpeg(path, channels)
    found = load_audio(path, rate).numpy()
    assert len(found) == len(expected) > 0.9 * rate
    np.testing.assert_allclose(found, expected, atol=1e-5)
    part = load_audio(path, rate, 0.3, 0.6).numpy()
    np.testing.assert_array_equal(part, found[round(0.3 * rate) : round(0.6 * rate)])
    assert sound_seconds(path) == pytest.approx(len(found) / rate, abs=0.05)


@pytest.fixture(scope="module")
def m4a(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("m4a")
    soundfile.write(folder / "source.wav", noise(32_000), 16000)
    ffmpeg("-i", folder / "source.wav", "-movflags", "+faststart", folder / "a.m4a")
    return (folder / "a.m4a").read_bytes()


def test_a_name_does_not_matter(m4a: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.m4a").write_bytes(m4a)
    (tmp_path / "a.wav").write_bytes(m4a)
    np.testing.assert_array_equal(load_audio(tmp_path / "a.wav"), load_audio(tmp_path / "a.m4a"))


@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_a_cut_one_is_named(keep: float, m4a: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.m4a").write_bytes(m4a[: int(len(m4a) * keep)])
    with pytest.raises(AudioError, match=r"a\.m4a: truncated.*; copy it again$"):
        load_audio(tmp_path / "a.m4a")


def test_a_film_without_sound(tmp_path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "color=size=16x16:duration=0.2", tmp_path / "a.mp4")
    with pytest.raises(AudioError, match=r"a\.mp4: holds no sound, only pictures or text; expected a sound file$"):
        load_audio(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.m4a", b"\0\0\0\x20ftypM4A "),
        ("a.webm", b"\x1aE\xdf\xa3" + bytes(99)),
        ("a.mp4", b"hello " * 99),
        ("a.wma", b"0&\xb2u" + bytes(99)),
        ("a.m3u8", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n"),
        ("a.txt", b"ffconcat version 1.0\nfile source.wav\n"),
        ("a.sdp", b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n"),
    ],
)
def test_what_ffmpeg_does_not_read_either(name: str, content: bytes, tmp_path: Path) -> None:
    """Lists of other files and addresses among them."""
    soundfile.write(tmp_path / "source.wav", noise(1600), 16000)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AudioError, match=rf"{name}: not a sound file that libsndfile or FFmpeg reads \(.*\)$") as error:
        load_audio(tmp_path / name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.m4a", b"\0\0\0\x20ftypM4A "),
        ("a.MP4", bytes(99)),
        ("a.wma", b"0&\xb2u" + bytes(99)),
        ("a.webm", b"\x1aE\xdf\xa3" + bytes(99)),
        ("a.wav", b"\0\0\0\x20ftypM4A " + bytes(99)),
        ("a", b"\x1aE\xdf\xa3" + bytes(99)),
        ("b", b"#!AMR\n" + bytes(99)),
        ("c", b"\xff\xf1\x50\x80" + bytes(99)),
    ],
)
def test_without_the_extra_the_error_names_it(
    name: str, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "formats_installed", lambda: False)
    (tmp_path / name).write_bytes(content)
    message = rf"{name}: of a kind that libsndfile does not read; pip install 'fastloaa\[formats\]', or convert it to"
    with pytest.raises(AudioError, match=message):
        load_audio(tmp_path / name)
    (tmp_path / "notes.txt").write_bytes(b"hello " * 99)
    with pytest.raises(AudioError, match=r"not a sound file that libsndfile reads \(.*\); convert it to wav, flac or"):
        load_audio(tmp_path / "notes.txt")
