"""Classifier: from sound files to the labels that PyTorch would give."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from fastloaa import AST, adapt
from fastloaa.audio import load_audio
from fastloaa.export import Classifier, Prediction, to_onnx
from helpers.small import SMALL, small_ast, wake_adapters

LABELS = ("dog", "rain", "saw", "sea", "clock")


@pytest.fixture(scope="module")
def model() -> AST:
    torch.manual_seed(0)
    model = adapt(small_ast(labels=LABELS, backbone_options=SMALL | {"depth": 1}), bottleneck=4)
    wake_adapters(model)
    return model


@pytest.fixture(scope="module", params=["waveform", "log_mel"])
def onnx_file(request: pytest.FixtureRequest, model: AST, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    to_onnx(model, path, waveform=request.param == "waveform")
    return path


def write_noise(path: Path, seconds: float, rate: int = 16000, channels: int = 1) -> Path:
    level = np.random.default_rng(len(path.name)).normal(size=(int(seconds * rate), channels)) * 0.1
    soundfile.write(path, level + 0.05, rate)
    return path


@pytest.fixture
def sounds(tmp_path: Path) -> list[Path]:
    """Lengths below one window, below, at and beyond what fills the 64 frames (0.655 s), three rates, two channels."""
    return [
        write_noise(tmp_path / "tiny.wav", 0.01),
        write_noise(tmp_path / "short.wav", 0.3),
        write_noise(tmp_path / "also_short.wav", 0.3),
        write_noise(tmp_path / "filling.flac", 0.655),
        write_noise(tmp_path / "long.wav", 2.0, rate=44100),
        write_noise(tmp_path / "stereo.ogg", 1.0, rate=8000, channels=2),
    ]


@torch.no_grad()
def test_answers_as_pytorch_does(onnx_file: Path, model: AST, sounds: list[Path]) -> None:
    predictions = list(Classifier(onnx_file).classify(sounds, top=5))
    assert [prediction.path for prediction in predictions] == sounds
    for prediction in predictions:
        waveform = load_audio(prediction.path)[None]  # alone: nothing to pad
        expected = model(model.front_end(waveform)).softmax(1)[0]
        best = expected.argsort(descending=True)
        assert prediction.labels == tuple(LABELS[index] for index in best)
        torch.testing.assert_close(torch.tensor(prediction.probabilities), expected[best], atol=1e-5, rtol=0)
        assert prediction.error is None


def test_neighbours_of_equal_length_share_a_batch(
    onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = [0.2, 0.2, 0.2, 0.1, 0.1, 0.2]
    paths = [write_noise(tmp_path / f"{number}.wav", seconds) for number, seconds in enumerate(lengths)]
    paths.insert(5, tmp_path / "missing.wav")
    classifier, shapes = Classifier(onnx_file), []
    run = classifier.probabilities
    monkeypatch.setattr(classifier, "probabilities", lambda waveform: (shapes.append(waveform.shape), run(waveform))[1])
    assert [prediction.path for prediction in classifier.classify(paths, batch_size=2)] == paths
    assert shapes == [(2, 3200), (1, 3200), (2, 1600), (1, 3200)]


def test_broken_files_do_not_stop_the_stream(onnx_file: Path, sounds: list[Path], tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("not a sound")
    (tmp_path / "empty.wav").touch()
    broken = [tmp_path / "text.wav", tmp_path / "empty.wav", tmp_path / "nowhere.wav", tmp_path]
    paths = [broken[0], *sounds[:2], *broken[1:3], *sounds[2:], broken[3]]
    predictions = list(Classifier(onnx_file).classify(map(str, paths)))
    assert [prediction.path for prediction in predictions] == paths
    for prediction in predictions:
        if prediction.path in broken:
            assert prediction.error is not None
            assert prediction.error.startswith(f"{prediction.path}: ")
            assert "\n" not in prediction.error
            assert prediction == Prediction(prediction.path, error=prediction.error)
        else:
            assert prediction.error is None
            assert len(prediction.labels) == len(prediction.probabilities) == 3


def test_files_are_read_as_they_are_asked_for(onnx_file: Path, sounds: list[Path]) -> None:
    """A stream without end gives answers."""

    def endless() -> object:
        while True:
            yield from sounds[:2]

    answers = Classifier(onnx_file).classify(endless(), batch_size=1)  # type: ignore[arg-type]
    assert [next(answers).path for _ in range(5)] == [*sounds[:2], *sounds[:2], sounds[0]]


def test_more_names_than_classes_are_all_classes(onnx_file: Path, sounds: list[Path]) -> None:
    (prediction,) = Classifier(onnx_file).classify(sounds[:1], top=99)
    assert sorted(prediction.labels) == sorted(LABELS)
    assert sum(prediction.probabilities) == pytest.approx(1, abs=1e-6)


def test_numbers_below_one_are_refused_at_once(onnx_file: Path) -> None:
    for options in ({"batch_size": 0}, {"top": 0}):
        with pytest.raises(ValueError, match="at least 1; got"):
            Classifier(onnx_file).classify([], **options)
