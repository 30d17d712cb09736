"""load_audio on files written here by soundfile, against the sounds they were made from."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from fastloaa.audio import AudioError, decode, load_audio, load_beginning
from fastloaa.audio.resample import resample


def sine(hertz: float, rate: int, seconds: float = 0.5) -> np.ndarray:
    """Amplitude 0.5, `[samples]`."""
    return 0.5 * np.sin(2 * math.pi * hertz * np.arange(round(rate * seconds)) / rate)


def loudest(waveform: Tensor, rate: int) -> float:
    """Frequency of the strongest component in Hz, between the bins of the DFT by parabolic interpolation."""
    spectrum = torch.fft.rfft(waveform * torch.hann_window(len(waveform)), n=8 * len(waveform)).abs().log()
    top = int(spectrum.argmax())
    left, middle, right = spectrum[top - 1 : top + 2].tolist()
    return (top + (left - right) / (2 * (left - 2 * middle + right))) * rate / (8 * len(waveform))


@pytest.mark.parametrize(
    ("suffix", "subtype", "error"),
    [
        ("wav", "PCM_U8", 2**-7),
        ("wav", "PCM_16", 2**-15),
        ("wav", "PCM_24", 2**-22),
        ("wav", "PCM_32", 2**-23),
        ("wav", "FLOAT", 2**-23),
        ("wav", "DOUBLE", 2**-23),
        ("flac", "PCM_16", 2**-15),
        ("flac", "PCM_24", 2**-22),
        ("aiff", "PCM_16", 2**-15),
        ("ogg", "VORBIS", 0.03),
        ("ogg", "OPUS", 0.03),
        ("mp3", "MPEG_LAYER_III", 0.03),
    ],
)
def test_decodes_formats(suffix: str, subtype: str, error: float, tmp_path: Path) -> None:
    path = tmp_path / f"sound.{suffix}"
    soundfile.write(path, sine(440, 16000), 16000, subtype)
    waveform = load_audio(path)
    assert waveform.dtype == torch.float32
    assert waveform.shape == (8000,)
    # Lossy codecs smear the edges.
    np.testing.assert_allclose(waveform[800:-800], sine(440, 16000)[800:-800], atol=error)


@pytest.mark.parametrize("channels", [1, 2, 6, 8])
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_averages_channels(channels: int, suffix: str, tmp_path: Path) -> None:
    levels = np.arange(1, channels + 1) / channels
    soundfile.write(tmp_path / f"a.{suffix}", sine(300, 16000)[:, None] * levels, 16000)
    waveform = load_audio(tmp_path / f"a.{suffix}")
    np.testing.assert_allclose(waveform, sine(300, 16000) * levels.mean(), atol=5e-5)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 96000, 192000])
@pytest.mark.parametrize("target", [16000, 24000])
def test_resamples(rate: int, target: int, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", sine(1000, rate), rate, "FLOAT")
    waveform = load_audio(tmp_path / "a.wav", target)
    assert len(waveform) == math.ceil(rate // 2 * target / rate)
    inner = slice(target // 50, -target // 50)
    np.testing.assert_allclose(waveform[inner], sine(1000, target)[: len(waveform)][inner], atol=5e-3)


@pytest.mark.parametrize("rate", [1000, 11127, 22254, 44101, 15999, 999_983])
def test_resamples_awkward_rates(rate: int, tmp_path: Path) -> None:
    """Coprime rates, whose exact filters would take up to gigabytes."""
    soundfile.write(tmp_path / "a.wav", sine(300, rate), rate, "FLOAT")
    waveform = load_audio(tmp_path / "a.wav")
    assert len(waveform) == pytest.approx(8000, rel=3e-4, abs=17)
    assert loudest(waveform, 16000) == pytest.approx(300, rel=5e-4)


def test_removes_what_the_lower_rate_cannot_hold(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", sine(12000, 44100), 44100, "FLOAT")
    assert load_audio(tmp_path / "a.wav")[400:-400].abs().max() < 5e-3


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "aiff"])
@pytest.mark.parametrize(
    ("start", "stop", "first", "end"), [(0.1, None, 800, 4000), (0.0, 0.25, 0, 2000), (0.1, 0.25, 800, 2000)]
)
def test_reads_a_segment(suffix: str, start: float, stop: float | None, first: int, end: int, tmp_path: Path) -> None:
    noise = 0.3 * np.random.default_rng(0).standard_normal((4000, 2))
    soundfile.write(tmp_path / f"a.{suffix}", noise, 8000)
    whole = load_audio(tmp_path / f"a.{suffix}", 8000)
    assert torch.equal(load_audio(tmp_path / f"a.{suffix}", 8000, start, stop), whole[first:end])


def test_a_segment_ends_with_the_file(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", sine(300, 16000), 16000)
    assert len(load_audio(tmp_path / "a.wav", start=0.4, stop=60.0)) == 1600
    for start in (0.5, 60.0):
        with pytest.raises(
            AudioError, match=rf"ends after 0\.5 s, expected sound from {start:g} s; correct the times$"
        ):
            load_audio(tmp_path / "a.wav", start=start, stop=61.0)


def test_resample_keeps_leading_axes() -> None:
    waveform = torch.from_numpy(sine(300, 24000)).float()
    both = resample(torch.stack([waveform, -waveform]), 24000, 16000)
    assert both.shape == (2, 8000)
    np.testing.assert_allclose(both[0, 200:-200], sine(300, 16000)[200:-200], atol=5e-3)
    assert resample(waveform, 16000, 16000) is waveform


def test_takes_names_as_text(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "größe 1.wav", sine(300, 16000), 16000)
    assert len(load_audio(str(tmp_path / "größe 1.wav"))) == 8000


def cut(suffix: str, keep: float, seconds: int = 1) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / f"sound.{suffix}"
        soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(16000 * seconds), 16000)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
        return path

    return make


def content(name: str, data: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


def samples(values: list[float], rate: int = 16000) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        soundfile.write(folder / "a.wav", np.array(values, dtype=np.float32), rate, "FLOAT")
        return folder / "a.wav"

    return make


def folder_named_like_a_sound(folder: Path) -> Path:
    (folder / "a.wav").mkdir()
    return folder / "a.wav"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "missing.wav", "no such file"),
        (folder_named_like_a_sound, "is a folder, expected a sound file"),
        (content("notes.txt", b"hello " * 99), "not a sound file that libsndfile"),
        (content("a.wav", b"hello " * 99), "not a sound file"),
        (content("a.mp3", b"hello " * 99), "not a sound file"),
        (content("a.raw", b"hello " * 99), "not a sound file"),
        (content("a.ogg", b""), "not a sound file"),
        (samples([]), "holds no samples"),
        (samples([0.0, float("nan"), 0.1]), "NaN or infinite"),
        (samples([0.0, float("inf"), 0.1]), "NaN or infinite"),
        (samples([0.0] * 9, rate=999), "header says 999 Hz"),
        (samples([0.0] * 9, rate=1_000_001), "header says 1000001 Hz"),
        (cut("wav", 0.5), "truncated, 15978 of 32000 bytes"),
        (cut("wav", 0.001), "not a sound file"),
        (cut("aiff", 0.5), "truncated"),
        (cut("flac", 0.5), "truncated or damaged"),
    ],
)
def test_names_what_is_wrong(make: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    path = make(tmp_path)
    with pytest.raises(AudioError, match=message) as caught:
        load_audio(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["ogg", "mp3"])
def test_a_cut_stream_is_a_short_recording(suffix: str, tmp_path: Path) -> None:
    assert 8000 < len(load_audio(cut(suffix, 0.6, seconds=5)(tmp_path))) < 70000


@pytest.mark.parametrize("rate", [8000, 16000, 44_100])
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
@pytest.mark.parametrize("samples", [1, 999, 16_000, 10**9])
def test_the_beginning_is_that_of_the_whole(rate: int, suffix: str, samples: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / f"a.{suffix}", rng.uniform(-0.5, 0.5, (3 * rate, 2)), rate)
    whole = load_audio(tmp_path / f"a.{suffix}")
    beginning, seconds = load_beginning(tmp_path / f"a.{suffix}", 16000, samples)
    torch.testing.assert_close(beginning, whole[:samples], rtol=0, atol=1e-6)
    assert beginning.untyped_storage().nbytes() <= 4 * len(whole)
    assert seconds == pytest.approx(3, abs=1e-9)


def test_what_follows_the_beginning_is_looked_at(tmp_path: Path) -> None:
    """As `load_audio` does: a file that is cut or holds NaN is no recording, wherever that is."""
    samples = np.zeros(90_000)
    soundfile.write(tmp_path / "cut.flac", np.random.default_rng(0).uniform(-0.5, 0.5, 90_000), 16000)
    content = (tmp_path / "cut.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(content[: len(content) // 2])
    samples[80_000] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "none.wav", samples[:0], 16000)
    for name in ("cut.flac", "nan.wav", "none.wav"):
        with pytest.raises(AudioError) as of_whole:
            load_audio(tmp_path / name)
        with pytest.raises(AudioError) as of_beginning:
            load_beginning(tmp_path / name, 16000, 1000)
        assert str(of_beginning.value) == str(of_whole.value)


def test_a_beginning_of_more_than_is_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "LONGEST", 1000)
    soundfile.write(tmp_path / "a.wav", np.zeros(16_000), 16000)
    with pytest.raises(AudioError, match="too many to read at once"):
        load_audio(tmp_path / "a.wav")
    assert len(load_beginning(tmp_path / "a.wav", 16000, 500)[0]) == 500
