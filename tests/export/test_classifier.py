"""Classifier: from sound files to the labels that PyTorch would give."""

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from fastloaa import AST, adapt
from fastloaa.audio import AudioError, AudioStream, load_audio
from fastloaa.errors import ArgumentError, FastloaaError
from fastloaa.export import Classifier, Prediction, to_onnx
from fastloaa.export.windows import Pool
from helpers.small import SMALL, small_ast, wake_adapters

SAMPLES = 10_480  # of 64 frames: 400 + 63 * 160
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
    """Of one analysis window, below, at and beyond what fills the 64 frames (0.655 s), three rates, two channels."""
    return [
        write_noise(tmp_path / "tiny.wav", 0.025),
        write_noise(tmp_path / "short.wav", 0.3),
        write_noise(tmp_path / "also_short.wav", 0.3),
        write_noise(tmp_path / "filling.flac", 0.655),
        write_noise(tmp_path / "long.wav", 2.0, rate=44100),
        write_noise(tmp_path / "stereo.ogg", 1.0, rate=8000, channels=2),
    ]


def cut(samples: torch.Tensor, hop: int = SAMPLES // 2) -> torch.Tensor:
    """[n] -> [windows, SAMPLES], or [1, n] of what is shorter: hop by hop, and the last one ends with the recording."""
    starts = [*range(0, len(samples) - SAMPLES, hop), max(len(samples) - SAMPLES, 0)]
    return torch.stack([samples[start : start + SAMPLES] for start in starts])


@torch.no_grad()
def test_answers_as_pytorch_does(onnx_file: Path, model: AST, sounds: list[Path]) -> None:
    predictions = list(Classifier(onnx_file).classify(sounds, top=5))
    assert [prediction.path for prediction in predictions] == sounds
    for prediction in predictions:
        expected = model(model.front_end(cut(load_audio(prediction.path)))).softmax(1).mean(0)
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


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("pool", ["mean", "max"])
@torch.no_grad()
def test_all_of_a_recording_is_heard(
    batch_size: int, pool: Literal["mean", "max"], onnx_file: Path, model: AST, sounds: list[Path], tmp_path: Path
) -> None:
    """Another sound behind what the model hears at once changes the answer, whatever shares a batch with it."""
    later = np.concatenate([np.zeros(20_000), np.random.default_rng(5).normal(size=9000) * 0.1])
    soundfile.write(tmp_path / "later.wav", later, 16000, subtype="FLOAT")
    paths = [*sounds, tmp_path / "later.wav", sounds[4]]
    answers = Classifier(onnx_file).classify(paths, batch_size, top=5, hop=0.1, pool=pool)
    for path, answer in zip(paths, answers, strict=True):
        rows = model(model.front_end(cut(load_audio(path), 1600))).softmax(1)
        expected = rows.mean(0) if pool == "mean" else rows.amax(0)
        found = torch.tensor([dict(zip(answer.labels, answer.probabilities, strict=True))[label] for label in LABELS])
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        assert answer.heard == answer.seconds == pytest.approx(soundfile.info(path).duration, abs=1e-9)


@torch.no_grad()
def test_timeline(onnx_file: Path, model: AST, sounds: list[Path]) -> None:
    classifier = Classifier(onnx_file)
    long = load_audio(sounds[4])  # 2 s
    windows = list(classifier.timeline(sounds[4], hop=0.5))
    assert [window.start for window in windows] == [0, 0.5, 1, 2 - 0.655]
    assert [window.end for window in windows] == pytest.approx([0.655, 1.155, 1.655, 2])
    expected = model(model.front_end(cut(long, 8000))).softmax(1)
    torch.testing.assert_close(torch.tensor(np.stack([w.probabilities for w in windows])), expected, atol=1e-5, rtol=0)
    assert windows[0].probabilities.dtype == np.float32
    (short,) = classifier.timeline(sounds[1])
    assert (short.start, short.end) == (0, pytest.approx(0.3))
    best = int(short.probabilities.argmax())
    assert classifier.named(short.probabilities, top=1) == [(LABELS[best], pytest.approx(short.probabilities[best]))]


def test_timelines_of_what_people_have(onnx_file: Path, sounds: list[Path]) -> None:
    """The same windows of a file, of its samples in several forms, and of blocks as a microphone gives them."""
    classifier = Classifier(onnx_file)
    long = load_audio(sounds[4])
    expected = list(classifier.timeline(sounds[4]))
    forms = [str(sounds[4]), long, long.numpy(), long.double().numpy(), long.split(700), iter([*long.split(9000)])]
    forms.append(AudioStream(sounds[4]))
    for form in forms:
        found = list(classifier.timeline(form))
        assert [(window.start, window.end) for window in found] == [(window.start, window.end) for window in expected]
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)


def test_a_stream_at_another_rate_is_not_heard(onnx_file: Path, sounds: list[Path]) -> None:
    """It would be answered for as a slower or faster sound."""
    with pytest.raises(ArgumentError, match=r"an AudioStream at 8000 Hz, the model hears 16000 Hz; open it with"):
        next(Classifier(onnx_file).timeline(AudioStream(sounds[4], 8000)))


def test_a_timeline_goes_as_the_sound_does(onnx_file: Path) -> None:
    """Each window is answered before more is asked for than it holds."""
    asked: list[int] = []

    def microphone() -> Iterator[NDArray[np.float32]]:
        while True:
            asked.append(1000)
            yield np.random.default_rng(len(asked)).normal(size=1000).astype(np.float32)

    for window, _ in zip(Classifier(onnx_file).timeline(microphone(), hop=0.25), range(5), strict=False):
        assert sum(asked) - 1000 < window.end * 16000 <= sum(asked)


def test_a_hop_beyond_the_window_leaves_gaps(onnx_file: Path, sounds: list[Path]) -> None:
    classifier = Classifier(onnx_file)
    assert [window.start for window in classifier.timeline(sounds[4], hop=0.9)] == [0, 0.9, 2 - 0.655]
    (answer,) = classifier.classify(sounds[4], hop=0.9)
    assert (answer.seconds, answer.heard) == (2, pytest.approx(0.655 * 3 - (0.9 + 0.655 - 1.345)))


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_change_nothing(workers: int, onnx_file: Path, sounds: list[Path], tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("not a sound")
    paths = [*sounds, tmp_path / "text.wav", *sounds[::-1], tmp_path / "nowhere.wav", sounds[4]]
    classifier = Classifier(onnx_file)
    expected = list(classifier.classify(paths, 4))
    assert list(classifier.classify(paths, 4, workers=workers)) == expected
    started = threading.active_count()
    answers = classifier.classify(itertools.cycle(paths), 4, workers=workers)
    assert [next(answers) for _ in range(20)] == (expected * 2)[:20]
    answers.close()  # type: ignore[attr-defined]
    assert threading.active_count() == started


def test_what_is_no_recording(onnx_file: Path, tmp_path: Path) -> None:
    """One line each: where reading gets there, of a file in the middle as well."""
    classifier = Classifier(onnx_file)
    samples = np.zeros(90_000)
    samples[80_000] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "none.wav", samples[:0], 16000)
    nan, none = classifier.classify([tmp_path / "nan.wav", tmp_path / "none.wav"])
    assert nan.error is not None
    assert "nan.wav: holds NaN or infinite samples, the first at 5 s; write it again" in nan.error
    assert none.error == f"{tmp_path / 'none.wav'}: holds no samples; record it again or leave it out"
    with pytest.raises(AudioError, match="the first at 5 s"):
        list(classifier.timeline(tmp_path / "nan.wav"))
    for wrong, message in [
        (samples, "among the 90000 from sample number 0 on"),
        ([samples[:1000], samples[:0], samples[1000:]], "among the 89000 from sample number 1000 on"),
        (samples[:0], "no samples, expected at least one"),
        (samples.reshape(2, -1), r"expected samples \[samples\], or blocks of them, got shape \[2, 45000\]"),
        (5, "expected the path of a sound file, samples or blocks of samples; got int"),
    ]:
        with pytest.raises(FastloaaError, match=message):
            list(classifier.timeline(wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_samples_that_are_far_too_large(onnx_file: Path, tmp_path: Path, pool: Pool) -> None:
    """Finite, but their power is not: no answer, rather than none of the classes."""
    classifier, samples = Classifier(onnx_file), np.zeros(90_000, np.float32)
    samples[80_000:] = 1e30
    soundfile.write(tmp_path / "loud.wav", samples, 16000, subtype="FLOAT")
    (answer,) = classifier.classify(tmp_path / "loud.wav", pool=pool)
    assert answer.error is not None
    assert answer.error.startswith(f"{tmp_path / 'loud.wav'}: the model's answer is not a number; expected")
    assert answer == Prediction(answer.path, error=answer.error)
    for sound, error in ((tmp_path / "loud.wav", AudioError), (samples, ArgumentError)):
        heard = classifier.timeline(sound)
        assert np.isfinite(next(heard).probabilities).all()
        with pytest.raises(error, match="the model's answer is not a number"):
            list(heard)


def test_silence_has_an_answer(onnx_file: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(90_000), 16000)
    (answer,) = Classifier(onnx_file).classify(tmp_path / "silence.wav", top=5)
    assert answer.error is None
    assert sum(answer.probabilities) == pytest.approx(1, abs=1e-6)


def test_many_channels_at_a_high_rate(onnx_file: Path, tmp_path: Path) -> None:
    """192 kHz and 8 channels that all hold the same: the answer of one channel at 16 kHz."""
    seconds = np.arange(3 * 192_000) / 192_000
    tone = 0.3 * np.sin(2 * np.pi * (200 + 300 * seconds) * seconds)
    soundfile.write(tmp_path / "many.wav", np.repeat(tone[:, None], 8, 1), 192_000, subtype="FLOAT")
    soundfile.write(tmp_path / "one.wav", tone[::12], 16_000, subtype="FLOAT")
    many, one = Classifier(onnx_file).classify([tmp_path / "many.wav", tmp_path / "one.wav"], top=5)
    assert many.seconds == one.seconds == 3
    assert many.labels == one.labels
    assert many.probabilities == pytest.approx(one.probabilities, abs=2e-3)  # other filters at the edge of the band


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
    classifier = Classifier(onnx_file)
    options: dict[str, Any]
    for options in ({"batch_size": 0}, {"top": 0}):
        with pytest.raises(ValueError, match="at least 1; got"):
            classifier.classify([], **options)
    with pytest.raises(ValueError, match="at least 1; got"):
        classifier.timeline("a.wav", batch_size=0)
    for hop in (0, -1, float("nan"), "1"):
        with pytest.raises(ValueError, match="hop is"):
            classifier.classify([], hop=hop)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="hop is"):
            classifier.timeline("a.wav", hop=hop)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pool is 'mean' or 'max'; got 'sum'"):
        classifier.classify([], pool="sum")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="workers is a whole number, at least 0"):
        classifier.classify([], workers=-1)
