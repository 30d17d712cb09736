"""What people have at hand: it works where there is one meaning, otherwise one line says what was expected."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from fastloaa.audio import (
    AudioError,
    EpicSoundsFrontEnd,
    FrontEnd,
    LogMel,
    SpecAugment,
    load_audio,
    load_beginning,
    mixup,
    noise_and_roll,
)
from fastloaa.audio.resample import resample
from fastloaa.errors import FastloaaError
from helpers.sounds import noise

INT16 = np.round(noise(2 * 16000).reshape(2, 16000) * 32768).astype("int16")
FLOAT = INT16 / np.float32(32768)

SAME: dict[str, Any] = {
    "numpy": FLOAT,
    "numpy, double precision": FLOAT.astype("float64"),
    "numpy, big-endian": FLOAT.astype(">f4"),
    "numpy, not contiguous": np.asfortranarray(FLOAT),
    "numpy, reversed twice": FLOAT[:, ::-1].copy()[:, ::-1],
    "numpy, read-only": np.frombuffer(FLOAT.tobytes(), "float32").reshape(2, -1),
    "numpy, 16-bit integers": INT16,
    "tensor, 16-bit integers": torch.from_numpy(INT16),
    "list of numpy": list(FLOAT),
    "list of tensors": list(torch.from_numpy(FLOAT)),
    "tuple": tuple(FLOAT),
    "lists": FLOAT.tolist(),
}

MODULES: list[Callable[[Any], Tensor]] = [LogMel(), FrontEnd(32, 64), EpicSoundsFrontEnd(40, 32, 16000)]


@pytest.mark.parametrize("given", SAME.values(), ids=SAME.keys())
@pytest.mark.parametrize("module", MODULES, ids=lambda module: type(module).__name__)
def test_the_same_samples_give_the_same(given: Any, module: Callable[[Any], Tensor]) -> None:
    torch.testing.assert_close(module(given), module(torch.from_numpy(FLOAT)))


def test_lengths_and_targets_too() -> None:
    front_end = FrontEnd(32, 64)
    expected = front_end(torch.from_numpy(FLOAT), torch.tensor([16000, 8000]))
    for lengths in ([16000, 8000], np.array([16000, 8000])):
        torch.testing.assert_close(front_end(FLOAT, lengths), expected)
    torch.manual_seed(0)
    mixed, targets = mixup(torch.from_numpy(FLOAT), torch.eye(2))
    torch.manual_seed(0)
    found, found_targets = mixup(FLOAT, np.eye(2, dtype="float32"))
    assert torch.equal(found, mixed)
    assert torch.equal(found_targets, targets)


REFUSED: dict[str, tuple[Any, str]] = {
    "one clip": (FLOAT[0], r"expected a waveform \[batch, samples\], got shape \[16000\]; a single clip is"),
    "channels": (FLOAT[None], r"got shape \[1, 2, 16000\]; .*channels are averaged beforehand"),
    "no samples": (np.zeros((2, 0), "float32"), r"got shape \[2, 0\]"),
    "32-bit integers": (INT16.astype("int32"), r"got torch\.int32; divide it by its full scale"),
    "bytes of samples": (INT16.astype("uint8"), r"got torch\.uint8; divide"),
    "booleans": (FLOAT > 0, r"got torch\.bool"),
    "complex": (FLOAT.astype("complex64"), r"got torch\.complex64"),
    "several lengths": ([FLOAT[0], FLOAT[1, :99]], r"got a list; clips of several lengths are padded to one and their"),
    "a path": ("a.wav", r"got 'a\.wav'; load_audio reads sound files"),
    "another path": (Path("a.wav"), r"load_audio reads sound files"),
    "nothing": (None, r"expected a waveform \[batch, samples\], got a NoneType"),
    "words": (["a", "b"], r"expected a waveform \[batch, samples\], got a list"),
    "soundfile.read": ((FLOAT[0], 16000), r"expected a waveform \[batch, samples\], got a tuple"),
}


@pytest.mark.parametrize(("given", "message"), REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("module", MODULES, ids=lambda module: type(module).__name__)
def test_what_has_no_one_meaning_is_refused(given: Any, message: str, module: Callable[[Any], Tensor]) -> None:
    with pytest.raises(ValueError, match=message) as error:
        module(given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("augment", [SpecAugment(8, 8), noise_and_roll], ids=["SpecAugment", "noise_and_roll"])
def test_augmentations_of_features(augment: Callable[[Any], Tensor]) -> None:
    assert augment(np.zeros((2, 20, 16), "float32")).shape == (2, 20, 16)
    for given in (torch.zeros(20, 16), torch.zeros(2, 20, 16, dtype=torch.int16)):
        with pytest.raises(ValueError, match=r"expected floating-point features \[batch, frames, mel_bins\], got"):
            augment(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "got a NoneType;"),
        (b"a.wav", "got a bytes;"),
        (3, "got a int;"),
        (["a.wav"], "got a list;"),
        (FLOAT, r"got a numpy.ndarray of shape \[2, 16000\];"),
        (torch.zeros(3), r"got a torch.Tensor of shape \[3\];"),
    ],
)
def test_load_audio_takes_a_path(given: Any, message: str) -> None:
    with pytest.raises(AudioError, match=rf"^expected the path of a sound file, {message}"):
        load_audio(given)


@pytest.mark.parametrize(
    "times",
    [
        {"start": -1.0},
        {"start": float("nan")},
        {"stop": 0.0},
        {"start": 2.0, "stop": 1.0},
        {"stop": float("nan")},
        {"start": float("inf")},
        {"sample_rate": 0},
        {"sample_rate": -16000},
    ],
)
def test_times_and_rates_that_make_no_sense(times: dict[str, Any]) -> None:
    with pytest.raises(AudioError, match=r"^a\.wav: expected a (segment with 0 <= start < stop|sample_rate)"):
        load_audio("a.wav", **times)


def test_resample_takes_arrays() -> None:
    expected = resample(torch.from_numpy(FLOAT), 16000, 8000)
    for given in (FLOAT, INT16, FLOAT.tolist()):
        torch.testing.assert_close(resample(given, 16000, 8000), expected)
    with pytest.raises(ValueError, match=r"expected rates in Hz, at least 1, got 16000 and 0"):
        resample(FLOAT, 16000, 0)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda path: load_audio(path, "16000"), "expected a sample_rate in Hz"),
        (lambda path: load_audio(path, None), "expected a sample_rate in Hz"),
        (lambda path: load_audio(path, float("nan")), "expected a sample_rate in Hz"),
        (lambda path: load_audio(path, 16000, None), "expected a segment"),
        (lambda path: load_audio(path, 16000, "0"), "expected a segment"),
        (lambda path: load_audio(path, 16000, 0, "1"), "expected a segment"),
        (lambda path: load_beginning(path, 0, 5), "expected a sample_rate in Hz"),
        (lambda path: load_beginning(path, 16000, 0), "samples is a whole number, at least 1"),
        (lambda path: load_beginning(path, 16000, 5.5), "samples is a whole number, at least 1"),
        (lambda path: load_beginning(np.zeros(5), 16000, 5), "expected the path of a sound file"),
    ],
)
def test_rates_and_times(ask: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(9000), 16000)
    with pytest.raises(FastloaaError, match=message):
        ask(tmp_path / "a.wav")
    for rate in (16000, 16000.0, np.int64(16000), np.float32(16000)):
        assert len(load_audio(tmp_path / "a.wav", rate, np.float32(0.25))) == 5000  # type: ignore[arg-type]
