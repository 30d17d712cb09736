"""A server's models and recordings, and what it should answer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastloaa.export import Classifier
from fastloaa.export.serving.limits import Limits
from helpers.onnx_files import write_listener
from helpers.sounds import encoded, noise

LABELS = {"animals": ("dog", "crow", "frog"), "rooms": ("kitchen", "hall", "stairs [b]", "cellar")}
LIMITS = Limits(max_bytes=1 << 20, max_seconds=5, upload_seconds=60)


def listeners(folder: Path) -> dict[str, Classifier]:
    return {
        name: Classifier(write_listener(folder / f"{name}.onnx", labels, seed))
        for seed, (name, labels) in enumerate(LABELS.items())
    }


def flac(samples: NDArray[np.float64], rate: int = 16000) -> bytes:
    return encoded(samples, rate, "FLAC")


def check(answer: dict[str, Any], classifier: Classifier, content: bytes, folder: Path, **options: Any) -> None:
    """The classes that the classifier names by itself, with its probabilities."""
    path = folder / "sound"
    path.write_bytes(content)
    (expected,) = classifier.classify(path, **options)
    assert expected.error is None
    assert [each["label"] for each in answer["top"]] == list(expected.labels)
    assert [each["probability"] for each in answer["top"]] == pytest.approx(expected.probabilities, abs=1e-5)
    assert answer["seconds"] == expected.seconds
    assert answer["heard"] == expected.heard


FILES = {
    "float wav": encoded(noise(4000), 16000, "WAV", "FLOAT"),
    "int16 stereo": encoded(noise(9000, 2), 16000, "WAV", "PCM_16"),
    "48 kHz": encoded(noise(30_000), 48000, "WAV", "PCM_16"),
    "192 kHz, 8 channels, flac": encoded(noise(8000, 8), 192_000, "FLAC"),
    "ogg, several windows": encoded(noise(40_000), 16000, "OGG"),
    "mp3": encoded(noise(22_050), 22_050, "MP3"),
    "one analysis window": encoded(noise(400), 16000, "WAV"),
    "silence": encoded(np.zeros(16_000), 16000, "WAV"),
}
