"""Models that were trained on spectrograms from files hear such files as others hear sounds."""

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import typer
from matplotlib import pyplot
from matplotlib.image import imread
from numpy.typing import NDArray
from typer.testing import CliRunner

from fastloaa import AST
from fastloaa.audio import AudioError, LogMelStream
from fastloaa.cli.predict import predict
from fastloaa.errors import ArgumentError
from fastloaa.export import Classifier, timeline_figure, to_onnx, write_bundle
from fastloaa.files import FileError
from helpers.small import SMALL, small_ast, small_vit

LABELS = ("dog", "rain", "saw")
FRAMES, HOP, BINS = 64, 32, 48
app = typer.Typer()
app.command()(predict)


@pytest.fixture(scope="module")
def model() -> AST:
    """Answers that differ from window to window."""
    torch.manual_seed(0)
    options = SMALL | {"depth": 1}
    model = small_ast(
        3,
        FRAMES,
        labels=LABELS,
        front_end="log-mel",
        mel_bins=BINS,
        sample_rate=100,
        mean=-30.0,
        std=5.0,
        backbone_options=options,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model


@pytest.fixture(scope="module")
def onnx_file(model: AST, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    to_onnx(model, path, waveform=False)
    return path


@pytest.fixture(scope="module")
def classifier(onnx_file: Path) -> Classifier:
    return Classifier(onnx_file)


def spectrogram(frames: int) -> NDArray[np.float32]:
    """Whose bands come and go."""
    level = 5 * np.sin(np.arange(frames)[:, None] / 40 + np.arange(BINS) / 9)
    return (np.random.default_rng(frames).normal(-30, 5, (frames, BINS)) + level).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of one frame, of fewer than fill the model, just as many, more, and more than are read at once.

    Some archives and arrays have each other's names, and one archive holds a text too.
    """
    (tmp_path / "mels" / "deep").mkdir(parents=True)
    for frames in (1, 40, 64, 65, 9000):
        np.save(tmp_path / "mels" / f"{frames}.npy", spectrogram(frames))
    np.savez_compressed(tmp_path / "mels" / "deep" / "200.npz", log_mel=spectrogram(200), other=np.zeros(3))
    (tmp_path / "mels" / "deep" / "archive.npy").write_bytes((tmp_path / "mels" / "deep" / "200.npz").read_bytes())
    (tmp_path / "mels" / "deep" / "plain.npz").write_bytes((tmp_path / "mels" / "65.npy").read_bytes())
    np.savez(tmp_path / "mels" / "deep" / "described.npz", spectrogram(70))
    with zipfile.ZipFile(tmp_path / "mels" / "deep" / "described.npz", "a") as archive:
        archive.writestr("about.txt", "no array")
    np.save(tmp_path / "mels" / "deep" / "half.npy", spectrogram(300).astype(np.float16).T.copy().T)
    return tmp_path / "mels"


def starts(frames: int, hop: int = HOP) -> list[int]:
    return [*range(0, frames - FRAMES, hop), max(frames - FRAMES, 0)]


@torch.no_grad()
def rows(model: AST, values: NDArray[Any], hop: int = HOP) -> torch.Tensor:
    """PyTorch's probabilities of the windows, [windows, classes]."""
    log_mel = torch.from_numpy(values.astype(np.float32))
    windows = torch.stack([log_mel[start : start + FRAMES] for start in starts(len(values), hop)])
    return model(model.front_end(windows)).softmax(1)


def test_files(model: AST, classifier: Classifier, folder: Path) -> None:
    """All of each, as PyTorch does."""
    paths = sorted(folder.rglob("*.np?"))
    answers = list(classifier.classify(paths, top=3, workers=2))
    assert [answer.path for answer in answers] == paths
    for answer in answers:
        loaded = np.load(answer.path)
        values = loaded[loaded.files[0]] if isinstance(loaded, np.lib.npyio.NpzFile) else loaded
        found = dict(zip(answer.labels, answer.probabilities, strict=True))
        expected = rows(model, values).mean(0)
        torch.testing.assert_close(torch.tensor([found[label] for label in LABELS]), expected, atol=1e-5, rtol=0)
        assert answer.seconds == answer.heard == pytest.approx(len(values) / 100)
        assert answer.error is None


def test_timeline(model: AST, classifier: Classifier, folder: Path) -> None:
    """Of a file, of its values and of stretches of it: in seconds, a hundred frames each."""
    values = spectrogram(200)
    given = (
        folder / "deep" / "200.npz", values, torch.from_numpy(values).double(), np.array_split(values, 9),
        iter(torch.from_numpy(values).split(7)),
    )  # fmt: skip
    for form in given:
        windows = list(classifier.timeline(form, hop=0.2))
        assert [(window.start, window.end) for window in windows] == [
            pytest.approx((start / 100, (start + FRAMES) / 100)) for start in starts(200, 20)
        ]
        found = torch.tensor(np.stack([window.probabilities for window in windows]))
        torch.testing.assert_close(found, rows(model, values, 20), atol=1e-5, rtol=0)


def test_batches(model: AST, classifier: Classifier) -> None:
    values = torch.from_numpy(np.stack([spectrogram(50), spectrogram(50)[::-1]]))
    with torch.no_grad():
        expected = model(model.front_end(values)).softmax(1)
    torch.testing.assert_close(torch.from_numpy(classifier.probabilities(values)), expected, atol=1e-5, rtol=0)
    with pytest.raises(ArgumentError, match="0 frames at 100 Hz; the model looks at 1 and more"):
        classifier.probabilities(values[:, :0])


def test_a_long_file_is_read_in_stretches(folder: Path) -> None:
    """Those together are the file; an .npz comes at once."""
    stretches = list(LogMelStream(folder / "9000.npy", BINS))
    assert [len(stretch) for stretch in stretches] == [4096, 4096, 808]
    np.testing.assert_array_equal(torch.cat(stretches), spectrogram(9000))
    stream = LogMelStream(folder / "deep" / "200.npz", BINS, rate=50)
    assert [len(stretch) for stretch in stream] == [200]
    assert stream.seconds == 4


WRONG = {
    "bins.npy": (spectrogram(30)[:, :40], "has 40 mel bins, the model was trained on 48"),
    "nan.npy": (np.where(np.arange(100)[:, None] == 70, np.nan, spectrogram(100)), "holds NaN or infinite values"),
    "whole.npy": (np.zeros((30, BINS), int), "holds int64, expected a log-mel in floating point"),
    "none.npy": (np.zeros((0, BINS)), "holds an array of shape [0, 48]"),
    "double.npy": (np.full((30, BINS), 1e300), "holds NaN or infinite values"),
    "huge.npy": (np.full((30, BINS), 1e38, np.float32), "the model's answer is not a number; expected log-mels like"),
}


def test_what_is_no_spectrogram_of_its_kind(classifier: Classifier, folder: Path, tmp_path: Path) -> None:
    """One line each, and the others are answered for."""
    lines = {name: line for name, (_, line) in WRONG.items()}
    for name, (values, _) in WRONG.items():
        np.save(tmp_path / name, values)
    soundfile.write(tmp_path / "a.wav", np.zeros(9000), 16000)
    lines |= {"a.wav": "the model reads log-mels (.npy, .npz), as it was trained on, and no sounds"}
    lines |= {"nowhere.npy": "no such file"}
    paths = [tmp_path / name for name in lines]
    *broken, good = classifier.classify([*paths, folder / "40.npy"])
    assert good.error is None
    for answer, line in zip(broken, lines.values(), strict=True):
        assert answer.error is not None
        assert answer.error.startswith(f"{answer.path}: {line}")
        with pytest.raises(AudioError) as refused:
            list(classifier.timeline(answer.path))
        assert str(refused.value).startswith(f"{answer.path}: ")


def test_arrays_that_are_none(classifier: Classifier) -> None:
    for values, line in (
        (spectrogram(30).T, r"expected log-mels \[frames, mel_bins=48\], .* got torch.float32 \[48, 30\]"),
        (spectrogram(30).astype(int), "floating point, got torch.int64"),
        (np.full((9, BINS), np.inf), "NaN or infinite frames, among the 9 from frame number 0 on"),
        (spectrogram(30)[:0], "no frames, expected at least one"),
        (np.zeros(16000, np.float32), r"the model was trained on spectrograms from files"),
    ):
        with pytest.raises(ArgumentError, match=line):
            list(classifier.timeline(values))


@pytest.mark.parametrize("stored", [">f4", "<f8", "backwards", "read-only"])
def test_arrays_however_they_lie_in_memory(classifier: Classifier, stored: str) -> None:
    values = spectrogram(100)
    if stored == "backwards":
        given = values[::-1].copy()[::-1]
    else:
        given = values.astype(np.float32 if stored == "read-only" else stored)
        given.flags.writeable = stored != "read-only"
    expected = [window.probabilities for window in classifier.timeline(values)]
    np.testing.assert_array_equal([window.probabilities for window in classifier.timeline(given)], expected)
    np.testing.assert_array_equal(classifier.probabilities(given[None]), classifier.probabilities(values[None]))


@pytest.mark.parametrize("give", [np.asarray, torch.from_numpy])
def test_ranges_are_found_on_arrays(model: AST, tmp_path: Path, give: Any) -> None:
    """NumPy's as well as PyTorch's, of any length."""
    clips = [give(spectrogram(frames)) for frames in (40, 64, 200)]
    report = to_onnx(model, tmp_path / "half.onnx", waveform=False, precision="fp16", calibration=clips)
    assert (report.recordings, report.agreement) == (3, 1)


@pytest.mark.parametrize(
    ("clip", "got"),
    [
        (np.zeros(100, np.float32), "got torch.float32 [100]"),
        (np.zeros((100, 40), np.float32), "got torch.float32 [100, 40]"),
        (torch.zeros(1, 100, BINS), f"got torch.float32 [1, 100, {BINS}]"),
        (np.zeros((100, BINS), int), f"got torch.int64 [100, {BINS}]"),
        ("clip.npy", "got 'clip.npy'"),
    ],
)
def test_ranges_are_found_on_nothing_else(model: AST, tmp_path: Path, clip: Any, got: str) -> None:
    with pytest.raises(ArgumentError, match=re.escape(got)):
        to_onnx(model, tmp_path / "half.onnx", waveform=False, precision="fp16", calibration=[clip])
    assert not list(tmp_path.iterdir())


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command(onnx_file: Path, classifier: Classifier, folder: Path, tmp_path: Path) -> None:
    """Of a folder the spectrograms at any depth, and no sounds."""
    soundfile.write(folder / "a.wav", np.zeros(9000), 16000)
    expected = {
        str(answer.path): list(answer.labels) for answer in classifier.classify(sorted(folder.rglob("*.np?")), top=2)
    }
    for result in (
        run(onnx_file, folder, "--top", 2, "--json"),
        run(onnx_file, f"{folder}/**/*.np?", "--top", 2, "--json"),
    ):
        assert (result.exit_code, result.stderr) == (0, "")
        answers = map(json.loads, result.stdout.splitlines())
        assert {answer["file"]: [each["label"] for each in answer["top"]] for answer in answers} == expected
    assert run(onnx_file, folder, "--out", tmp_path / "table.csv").exit_code == 0
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 1 + 3 * len(expected)
    result = run(onnx_file, folder / "65.npy", "--timeline", "--json")
    assert [json.loads(line)["end"] for line in result.stdout.splitlines()] == [0.64, 0.65]
    (tmp_path / "empty").mkdir()
    for arguments, line in (
        ([tmp_path / "empty"], "a folder without log-mels (.npy or .npz)"),
        (["-", "--stream"], "spectrograms from files, which do not come out of a pipe"),
    ):
        assert line in str(run(onnx_file, *arguments).exception)


def test_a_picture(onnx_file: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its axis counts mel bins, whose frequencies are not known."""
    drawn: list[Any] = []
    figure = timeline_figure.TimelinePicture.figure
    monkeypatch.setattr(
        timeline_figure.TimelinePicture, "figure", lambda *given: drawn.append(figure(*given)) or drawn[-1]
    )
    assert run(onnx_file, folder / "deep" / "200.npz", "--timeline", "--out", tmp_path / "a.png").exit_code == 0
    assert imread(tmp_path / "a.png").ndim == 3
    above, _, *_ = drawn[0].axes
    assert above.get_ylabel() == "mel bin"
    assert above.get_ylim() == (0, BINS)
    (mesh,) = above.collections
    assert mesh.get_array().shape == (BINS, 200)
    np.testing.assert_allclose(mesh.get_array(), spectrogram(200).T, rtol=1e-5)
    pyplot.close("all")


@pytest.fixture(scope="module")
def bundle(onnx_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "mels"
    write_bundle(onnx_file, folder)
    return folder


def test_a_bundle(bundle: Path, classifier: Classifier, folder: Path) -> None:
    """Of what needs no sound; its client says what `Classifier` says, without PyTorch and this library."""
    names = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    assert names == {"README.md", "classify.py", "labels.txt", "model.json", "model.onnx"}
    paths = sorted(folder.rglob("*.np?"))
    blocked = "import sys; sys.modules.update(dict.fromkeys(['torch', 'fastloaa', 'onnx', 'soundfile']))"
    given = f"sys.argv[1:] = {list(map(str, paths))!r}"
    code = f"{blocked}\n{given}\nimport runpy; runpy.run_path({str(bundle / 'classify.py')!r}, run_name='__main__')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stderr == ""
    found = [line.split("\t") for line in result.stdout.splitlines()]
    expected = [
        (str(answer.path), label, probability)
        for answer in classifier.classify(paths)
        for label, probability in zip(answer.labels, answer.probabilities, strict=True)
    ]
    assert [(path, label) for path, label, _ in found] == [(path, label) for path, label, _ in expected]
    assert [float(share) for *_, share in found] == pytest.approx([share for *_, share in expected], abs=6e-5)


def test_the_bundles_client_refuses_what_predict_refuses(bundle: Path, classifier: Classifier, tmp_path: Path) -> None:
    """In one line each, and goes on."""
    for name, (values, _) in WRONG.items():
        np.save(tmp_path / name, values)
    np.savez(tmp_path / "several.npz", a=spectrogram(9), b=spectrogram(9))
    np.save(tmp_path / "pickled.npy", np.array([{}]), allow_pickle=True)
    np.save(tmp_path / "cut.npy", spectrogram(30))
    with (tmp_path / "cut.npy").open("r+b") as file:
        file.truncate(3000)
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("a.txt", "no array")
    (tmp_path / "nothing.npy").touch()
    (tmp_path / "folder.npy").mkdir()
    soundfile.write(tmp_path / "a.wav", np.zeros(9000), 16000)
    broken = [*sorted(tmp_path.iterdir()), tmp_path / "nowhere.npy"]
    np.save(tmp_path / "good.npy", spectrogram(30))
    assert all(answer.error for answer in classifier.classify(broken))
    command = [sys.executable, str(bundle / "classify.py"), *map(str, broken), str(tmp_path / "good.npy")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert {line.split("\t")[0] for line in result.stdout.splitlines()} == {str(tmp_path / "good.npy")}, result.stderr
    complaints = result.stderr.splitlines()
    assert len(complaints) == len(broken) == 14
    for file, complaint in zip(broken, complaints, strict=True):
        assert complaint.startswith(f"{file}: ")
    assert "several.npz: no array in NumPy's format, or several and none called log_mel" in result.stderr


def test_a_bundle_with_a_page_is_refused(onnx_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="reads log-mels, and a page hears sounds"):
        write_bundle(onnx_file, tmp_path / "b", "npm")
    assert not (tmp_path / "b").exists()


def test_a_model_of_images_hears_nothing(tmp_path: Path) -> None:
    to_onnx(small_vit(), tmp_path / "image.onnx", waveform=False)
    for use in (Classifier, lambda path: write_bundle(path, tmp_path / "b")):
        with pytest.raises(FileError, match=r"image"):
            use(tmp_path / "image.onnx")
