"""Exporting and answering with what people have at hand: it works where there is one meaning, else one line says what
was expected.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from fastloaa import AST
from fastloaa.errors import ArgumentError, FastloaaError
from fastloaa.export import Classifier, load_merged, to_onnx, write_bundle
from fastloaa.export.verify import verify
from helpers.small import SMALL, small_ast

SAMPLES = np.random.default_rng(0).uniform(-0.5, 0.5, 9000).astype(np.float32)
PCM = np.round(SAMPLES * 32768).astype(np.int16)


@pytest.fixture(scope="module")
def model() -> AST:
    torch.manual_seed(0)
    return small_ast(backbone_options=SMALL | {"depth": 1}).eval()


@pytest.fixture(scope="module")
def path(model: AST, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    to_onnx(model, path)
    return path


@pytest.fixture(scope="module")
def classifier(path: Path) -> Classifier:
    return Classifier(path)


WAVEFORMS: list[Callable[[], Any]] = [
    lambda: torch.tensor(SAMPLES)[None],
    lambda: SAMPLES[None],
    lambda: SAMPLES.astype(np.float64)[None],
    lambda: [SAMPLES.tolist()],
    lambda: [torch.tensor(SAMPLES)],
    lambda: torch.tensor(SAMPLES, dtype=torch.float64)[None],
    lambda: torch.tensor(SAMPLES)[None].requires_grad_(),
    lambda: SAMPLES[None].astype(">f4"),
    lambda: SAMPLES[::-1][None, ::-1],
    lambda: PCM[None],
    lambda: torch.tensor(PCM)[None],
]


@pytest.mark.parametrize("make", WAVEFORMS, ids=range(len(WAVEFORMS)))
@torch.no_grad()
def test_waveforms(make: Callable[[], Any], model: AST, classifier: Classifier) -> None:
    expected = model(model.front_end(torch.tensor(SAMPLES)[None])).softmax(1)
    answer = classifier.probabilities(make())
    assert (answer.dtype, answer.shape) == (np.float32, (1, 5))
    np.testing.assert_allclose(answer, expected, atol=1e-4)  # 16 bits round


NO_WAVEFORMS = [SAMPLES, SAMPLES[None, None], SAMPLES[None] > 0, SAMPLES[None] + 0j, SAMPLES[None, :0]]
NO_WAVEFORMS += [PCM[None].astype("i4"), "a.wav", [[0.1, 0.2], [0.3]], None]


@pytest.mark.parametrize("given", NO_WAVEFORMS, ids=range(len(NO_WAVEFORMS)))
def test_what_is_no_waveform(given: Any, classifier: Classifier) -> None:
    with pytest.raises(FastloaaError, match="expected a"):
        classifier.probabilities(given)


def test_a_single_path_is_a_list_of_it(classifier: Classifier, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", SAMPLES, 16000)
    (expected,) = classifier.classify([tmp_path / "a.wav"])
    assert list(classifier.classify(tmp_path / "a.wav")) == [expected]
    assert list(classifier.classify(str(tmp_path / "a.wav"))) == [expected]
    assert [found.path for found in classifier.classify(iter([tmp_path / "a.wav"] * 2))] == [tmp_path / "a.wav"] * 2


@pytest.mark.parametrize(
    "ask",
    [
        lambda classifier: classifier.classify(None),
        lambda classifier: classifier.classify(3),
        lambda classifier: classifier.classify(SAMPLES),
        lambda classifier: list(classifier.classify([SAMPLES])),
        lambda classifier: list(classifier.classify([b"a.wav"])),
        lambda classifier: list(classifier.classify([None])),
        lambda classifier: classifier.classify([], top=1.5),
        lambda classifier: classifier.classify([], top="3"),
        lambda classifier: classifier.classify([], batch_size=None),
        lambda classifier: classifier.classify([], threshold="half"),
        lambda classifier: classifier.classify([], threshold=float("nan")),
        lambda classifier: Classifier(None),
        lambda classifier: Classifier(b"model.onnx"),
        lambda classifier: write_bundle(None, "folder"),
        lambda classifier: write_bundle("model.onnx", 3),
        lambda classifier: load_merged(3),
    ],
)
def test_one_line_says_what_was_expected(ask: Callable[[Classifier], object], classifier: Classifier) -> None:
    with pytest.raises(FastloaaError, match=r"expected the path|whole number|is a probability") as error:
        ask(classifier)
    assert "\n" not in str(error.value)


def test_recordings_to_compare_with(model: AST, path: Path) -> None:
    """One recording in several forms: the differences are those of one form, within the rounding of 16 bits."""
    forms: list[Any] = [torch.tensor(SAMPLES), SAMPLES, SAMPLES.astype(np.float64), SAMPLES.tolist(), PCM]
    reports = [verify(path, model, [form]) for form in forms]
    assert [report.recordings for report in reports] == [1] * 5
    assert all(report.agreement == 1 for report in reports)


CALIBRATION: list[Iterable[Any]] = [["a.wav"], [SAMPLES[None]], [SAMPLES[:0]], [None], [SAMPLES > 0], SAMPLES]


@pytest.mark.parametrize("clips", CALIBRATION, ids=range(len(CALIBRATION)))
def test_what_is_no_recording(clips: Iterable[Any], model: AST, tmp_path: Path) -> None:
    """Said before anything is exported."""
    with pytest.raises(FastloaaError, match=r"expected a|recordings are \[samples\] each"):
        to_onnx(model, tmp_path / "a.onnx", precision="fp16", calibration=clips)
    assert not list(tmp_path.iterdir())


def test_a_recording_of_less_than_one_window(model: AST, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"calibration has 399 samples in recording number 1, .* looks at 400 and"):
        to_onnx(model, tmp_path / "a.onnx", precision="int8", calibration=[SAMPLES[:400], SAMPLES[:399]])
    assert not list(tmp_path.iterdir())


def test_letters_of_one_word_are_no_labels(model: AST, tmp_path: Path) -> None:
    with pytest.raises(FastloaaError, match=r"labels are the names of the classes, a list; got 'abcde'"):
        to_onnx(model, tmp_path / "a.onnx", labels="abcde")
    for labels in (dict(enumerate("abcde")), set("abcde")):  # transformers' id2label would be its numbers
        with pytest.raises(FastloaaError, match=r"labels are the names of the classes, a list; got \{"):
            to_onnx(model, tmp_path / "a.onnx", labels=labels)  # type: ignore[arg-type]
    to_onnx(model, tmp_path / "a.onnx", labels=[1, 2, 3, 4, 5])  # type: ignore[list-item]
    assert Classifier(tmp_path / "a.onnx").metadata.labels == ("1", "2", "3", "4", "5")
