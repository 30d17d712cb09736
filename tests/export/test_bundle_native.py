"""The bundle's C++, compiled as its README says, answers as the session does and says what it does not take."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from helpers.bundles import LABELS, program
from helpers.sounds import noise

HEADERS = (Path("/usr/include/onnxruntime"), Path(sys.prefix, "include", "onnxruntime"))
Build = Callable[[Path, Path], Path]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Laid out like a release of onnxruntime: headers, which are packaged apart, and the library of the wheel."""
    headers = next((folder for folder in HEADERS if (folder / "onnxruntime_cxx_api.h").is_file()), None)
    if headers is None:
        pytest.skip(
            f"onnxruntime_cxx_api.h is in none of {', '.join(map(str, HEADERS))}: Debian 13's libonnxruntime-dev"
        )
    (library,) = Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*")
    folder = tmp_path_factory.mktemp("release")
    (folder / "include").symlink_to(headers)
    (folder / "lib").mkdir()
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / "lib" / name).symlink_to(library)
    return folder


def by_hand(bundle: Path, release: Path) -> Path:
    """The line of the README."""
    program("g++")
    (line,) = re.findall(r"^g\+\+ .*$", (bundle / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    work = release / "by_hand"
    work.mkdir()
    (work / "classify.cpp").symlink_to(bundle / "classify.cpp")
    given = os.environ | {"ORT": str(release)}
    subprocess.run(["bash", "-uc", line], cwd=work, env=given, check=True)
    return work / "classify"


def by_cmake(bundle: Path, release: Path) -> Path:
    cmake = program("cmake")
    build = release / "build"
    subprocess.run([cmake, "-S", bundle, "-B", build, f"-DORT={release}"], check=True, capture_output=True)
    subprocess.run([cmake, "--build", build], check=True, capture_output=True)
    return build / "classify"


@pytest.fixture(scope="module", params=[by_hand, by_cmake], ids=lambda build: build.__name__)
def classify(
    request: pytest.FixtureRequest, bundle: Path, release: Path
) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Runs it, with no LD_LIBRARY_PATH: it knows where the library is."""
    build: Build = request.param
    executable = build(bundle, release)

    def run(samples: bytes, labels: Path = bundle / "labels.txt", model: Path = bundle / "model.onnx"):  # type: ignore[no-untyped-def]
        return subprocess.run([executable, model, labels], input=samples, env={}, capture_output=True, check=False)

    return run


@pytest.mark.parametrize("samples", [400, 10480, 10481, 40_000])
def test_answers_as_the_session_does(
    bundle: Path, classify: Callable[..., subprocess.CompletedProcess[bytes]], samples: int
) -> None:
    """The mean of windows half a window apart and one at the end."""
    waveform = (noise(samples, seed=samples) * np.linspace(0, 1, samples)).astype("<f4")
    starts = [*range(0, max(samples - 10480, 0) + 1, 5240)]
    starts += [samples - 10480] if starts[-1] + 10480 < samples else []
    session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    heard = [waveform[None, start : start + 10480] for start in starts]
    expected = np.mean([session.run(["probabilities"], {"waveform": part})[0][0] for part in heard], axis=0)
    result = classify(waveform.tobytes())
    assert (result.returncode, result.stderr) == (0, b"")
    label, probability = result.stdout.decode().strip().split("\t")
    assert label == LABELS[expected.argmax()]
    assert float(probability) == pytest.approx(expected.max(), abs=1e-5)


def test_says_what_it_does_not_take(
    bundle: Path, classify: Callable[..., subprocess.CompletedProcess[bytes]], tmp_path: Path
) -> None:
    """In one line, with an exit code that is not 0."""
    good = noise(5000).astype("<f4").tobytes()
    (tmp_path / "few.txt").write_text("one\ntwo\n")
    (tmp_path / "text.onnx").write_text("no model")
    for arguments, word in (
        ((b"",), "no samples"),
        ((good[:-1],), "truncated"),
        ((good[: 4 * 399],), "399 samples at 16000 Hz; the model looks at 400 and more"),
        ((good + np.array([np.nan], "<f4").tobytes(),), "NaN"),
        ((good + np.array([-np.inf], "<f4").tobytes(),), "NaN or infinite"),
        (((1e30 * noise(5000)).astype("<f4").tobytes(),), "answer is not a number"),
        ((good, tmp_path / "few.txt"), "does not name the model's classes"),
        ((good, tmp_path / "nowhere.txt"), "nowhere.txt"),
        ((good, bundle / "labels.txt", tmp_path / "nowhere.onnx"), "nowhere.onnx"),
        ((good, bundle / "labels.txt", tmp_path / "text.onnx"), "text.onnx"),
    ):
        result = classify(*arguments)
        assert result.returncode == 1
        assert result.stdout == b""
        complaint = result.stderr.decode()
        assert complaint.startswith("classify: ")
        assert word in complaint
