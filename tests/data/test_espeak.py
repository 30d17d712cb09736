"""The speech synthesiser."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import espeakng_loader
import numpy as np
import pytest
from numpy.typing import NDArray

from fastloaa.data import DataError
from fastloaa.data.espeak import Espeak
from fastloaa.data.words import ACCENTS, VARIANTS
from fastloaa.extras import MissingPackageError


def fundamental(speech: NDArray[np.int16], rate: int) -> float:
    """Pitch in Hz: the strongest autocorrelation of the loudest 50 ms between 60 and 400 Hz."""
    size = rate // 20
    energy = np.convolve(speech.astype(np.float64) ** 2, np.ones(size), "valid")
    frame = speech[energy.argmax() :][:size].astype(np.float64)
    correlation = np.correlate(frame, frame, "full")[size - 1 :]
    shortest = rate // 400
    return rate / (shortest + correlation[shortest : rate // 60].argmax())


def test_same_calls_give_the_same_samples_in_a_new_instance_at_another_time() -> None:
    def speak() -> list[bytes]:
        espeak = Espeak()
        return [espeak.say("stop", "en-us", variant, 50, 150).tobytes() for variant in VARIANTS]

    first = speak()
    time.sleep(1.1)  # espeak's own seed is the time in seconds
    assert speak() == first
    assert len(set(first)) == len(VARIANTS)


def test_pitch_and_rate_are_heard() -> None:
    espeak = Espeak()
    low, high = (fundamental(espeak.say("no", "en-us", "m3", pitch, 150), espeak.sample_rate) for pitch in (20, 80))
    assert 50 < low < 0.8 * high < 0.8 * 250
    slow, fast = (len(espeak.say("yellow", "en-us", "m3", 50, rate)) for rate in (120, 240))
    assert slow > 1.5 * fast


def test_every_accent_and_variant_of_the_words_speaks_without_clipping() -> None:
    espeak = Espeak()
    assert espeak.sample_rate == 22050
    for accent in ACCENTS:
        assert np.abs(espeak.say("stop", accent, "f3", 50, 150)).max() > 1000
    for variant in VARIANTS:
        for word in ("yes", "stop"):
            assert 1000 < np.abs(espeak.say(word, "en-us", variant, 50, 150).astype(int)).max() < 32000, variant


def test_an_accent_or_variant_that_espeak_lacks_is_refused() -> None:
    espeak = Espeak()
    with pytest.raises(DataError, match=r"no voice variant 'nobody'; expected a file in .*voices/!v$"):
        espeak.say("yes", "en", "nobody", 50, 150)
    with pytest.raises(DataError, match=r"refuses voice en-xx\+f3 with status \d+"):
        espeak.say("yes", "en-xx", "f3", 50, 150)


def test_a_missing_wheel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(MissingPackageError, match=r"^espeakng_loader is not .*'fastloaa\[words\]'$"):
        Espeak()


def returning(path: Path) -> Callable[[], str]:
    return lambda: str(path)


def test_a_long_path_to_the_voices_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    (folder / "espeak-ng-data").symlink_to(espeakng_loader.get_data_path())
    monkeypatch.setattr(espeakng_loader, "get_data_path", returning(folder / "espeak-ng-data"))
    assert len(Espeak().say("yes", "en-us", "f3", 50, 150)) > 0


def test_missing_voices_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(espeakng_loader, "get_data_path", returning(tmp_path))
    with pytest.raises(DataError, match=r"does not start with its data in .*; reinstall espeakng-loader$"):
        Espeak()


def test_a_damaged_library_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "libespeak-ng.so").write_text("no library")
    monkeypatch.setattr(espeakng_loader, "get_library_path", returning(tmp_path / "libespeak-ng.so"))
    with pytest.raises(DataError, match=r"^espeak-ng cannot be loaded"):
        Espeak()
