"""Recordings of half an hour and ten hours, in the memory of a short one."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from fastloaa.export import Classifier, to_onnx
from helpers.small import SMALL, small_ast


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    to_onnx(small_ast(backbone_options=SMALL | {"depth": 1}), path)
    return path


_PEAKS = """
import resource, sys
from fastloaa.export import Classifier
classifier = Classifier(sys.argv[1])
for path in sys.argv[2:]:
    (answer,) = classifier.classify(path, hop=0.6, workers=2)
    windows = sum(1 for _ in classifier.timeline(path, hop=2))
    print(answer.heard, windows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_half_an_hour_takes_the_memory_of_a_second(model: Path, tmp_path: Path) -> None:
    """The largest resident size of a process after each; stereo at 44.1 kHz, 635 MB as float32."""
    minute = np.random.default_rng(0).normal(size=(60 * 44_100, 2)) * 0.1
    with soundfile.SoundFile(tmp_path / "long.flac", "w", 44_100, 2) as file:
        for _ in range(30):
            file.write(minute)
    soundfile.write(tmp_path / "short.flac", minute[:44_100], 44_100)
    command = [sys.executable, "-c", _PEAKS, str(model), str(tmp_path / "short.flac"), str(tmp_path / "long.flac")]
    lines = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()
    short, long = ([float(number) for number in line.split()] for line in lines)
    assert short[:2] == [1, 2]
    assert long[:2] == [1800, 901]
    assert (long[2] - short[2]) / 1024 < 300  # MiB, of KiB


@pytest.mark.slow
def test_ten_hours(model: Path, tmp_path: Path) -> None:
    """Of silence with a click at the end, bytes that take no place on the disk; a window a minute."""
    samples = 10 * 3600 * 16_000
    soundfile.write(tmp_path / "long.wav", np.zeros(1), 16_000, subtype="PCM_U8")
    content = bytearray((tmp_path / "long.wav").read_bytes())
    begin = content.index(b"data") + 8
    content[4:8] = (begin + samples - 8).to_bytes(4, "little")
    content[begin - 4 : begin] = samples.to_bytes(4, "little")
    with (tmp_path / "long.wav").open("wb") as file:
        file.write(content[:begin])
        file.truncate(begin + samples)
        file.seek(begin + samples - 100)
        file.write(bytes([255] * 100))
    windows = list(Classifier(model).timeline(tmp_path / "long.wav", hop=60))
    assert len(windows) == 601
    assert windows[-1].end == 36_000
    for window in windows[1:-1]:
        np.testing.assert_allclose(window.probabilities, windows[0].probabilities, atol=1e-6)
    assert abs(windows[-1].probabilities - windows[0].probabilities).max() > 1e-3
