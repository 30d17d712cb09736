"""Spectrograms from files train like recordings: discovery, statistics, training, evaluation, export, and refusals."""

import gc
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console
from typer.testing import CliRunner

from fastloaa.audio import AudioError, StoredLogMel, load_log_mel, log_mel_shape, mixup
from fastloaa.cli import app
from fastloaa.data import Clip, DataError, load_splits, read_clip
from fastloaa.export import Classifier, to_onnx
from fastloaa.training import OptionError, evaluate, load_run, train
from fastloaa.training.evaluation import clip_dataset
from helpers.small import small_ast
from helpers.tone_set import small_recipe
from helpers.tones import write_tone

BINS, LEVEL, SPREAD = 48, -30.0, 5.0  # decibels, where 0 is as loud as can be
QUIET = Console(quiet=True)


def spectrogram(rng: np.random.Generator, kind: int, frames: int = 40) -> NDArray[np.float32]:
    """Noise around a level, with one third of the bins 3 spreads louder."""
    values = rng.normal(LEVEL, SPREAD, (frames, BINS))
    values[:, kind * BINS // 3 : (kind + 1) * BINS // 3] += 3 * SPREAD
    return values.astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 12: single and half precision, compressed and not, of different lengths."""
    root, rng = tmp_path_factory.mktemp("log-mels") / "log-mels", np.random.default_rng(0)
    for kind in range(3):
        (root / f"class{kind}").mkdir(parents=True)
        for number in range(12):
            values, file = spectrogram(rng, kind, 30 + number), root / f"class{kind}" / f"{number}"
            if number % 3 == 2:
                np.savez_compressed(f"{file}.npz", values.astype(np.float16))
            else:
                np.save(f"{file}.npy", values if number % 3 else np.asfortranarray(values))
    return root


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    options: dict[str, Any] = {"frames": None, "epochs": 4, "mixup": 0.5, "time_mask": 8, "freq_mask": 8, "workers": 1}
    train(small_recipe(folder, **options), out, console=QUIET)
    return out


def test_a_folder_trains_and_is_told_apart(folder: Path, run: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    assert result["test"]["accuracy"] > 0.8
    assert not result["broken_files"]
    model = load_run(run)
    assert isinstance(model.front_end, StoredLogMel)
    assert (model.front_end.mel_bins, model.front_end.frames) == (BINS, 48)  # whole patches of what 95% have
    splits = load_splits(folder)
    values = torch.cat([read_clip(clip) for clip in splits.train]).double()
    assert model.front_end.mean == pytest.approx(values.mean().item(), rel=1e-6)
    assert model.front_end.std == pytest.approx(values.std(correction=0).item(), rel=1e-6)
    again = evaluate(model, splits.test)
    assert again.accuracy == result["test"]["accuracy"]


def test_noise_and_roll_reach_spectrograms_from_files(folder: Path, tmp_path: Path) -> None:
    losses = set()
    for wanted in (False, True):
        recipe = small_recipe(folder, epochs=1, frames=32, noise_and_roll=wanted)
        train(recipe, tmp_path / str(wanted), console=QUIET)
        losses.add(json.loads((tmp_path / str(wanted) / "metrics.jsonl").read_text())["train_loss"])
    assert len(losses) == 2


def test_the_command_line_trains_evaluates_and_exports(folder: Path, run: Path, tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["evaluate", str(run), "--json"])
    assert json.loads(shown.stdout)["accuracy"] > 0.8
    path, bundle = tmp_path / "model.onnx", tmp_path / "bundle"
    command = f"export {run} {path} --precision int8 --calibration {folder} --bundle {bundle}"
    shown = CliRunner().invoke(app, command.split())
    assert shown.exit_code == 0, shown.output
    assert "recordings" in shown.output
    assert "without page, C++, JavaScript and Triton, which take sounds" in shown.output
    assert (bundle / "model.onnx").read_bytes() == path.read_bytes()
    assert {file.name for file in bundle.iterdir()} == {
        "README.md",
        "classify.py",
        "labels.txt",
        "model.json",
        "model.onnx",
    }
    model, classifier = load_run(run), Classifier(path)
    clips = load_splits(folder).test
    log_mels = torch.stack([read_clip(clip)[:30] for clip in clips])
    with torch.no_grad():
        expected = model(model.front_end(log_mels)).softmax(1)
    assert classifier.metadata.input == "log_mel"
    assert (classifier.probabilities(log_mels).argmax(1) == expected.argmax(1).numpy()).mean() > 0.9
    shown = CliRunner().invoke(app, ["predict", str(path), str(folder), "--top", "1", "--json"])
    assert shown.exit_code == 0, shown.output
    answers = [json.loads(line) for line in shown.stdout.splitlines()]
    assert len(answers) == 36
    assert sum(Path(answer["file"]).parent.name == answer["top"][0]["label"] for answer in answers) > 0.8 * 36
    tone = write_tone(tmp_path / "tone.wav")
    shown = CliRunner().invoke(app, ["predict", str(path), str(tone)])
    assert shown.exit_code == 1
    assert f"{tone}: the model reads log-mels (.npy, .npz), as it was trained on, and no sounds\n" in shown.output
    for command, line in {
        f"export {run} --bundle {tmp_path / 'other'} --web npm": "a page hears sounds",
        f"export {run} {tmp_path / 'int8.onnx'} --precision int8 --calibration {tmp_path}": "without log-mels",
        f"attention {run} {tmp_path / 'tone.wav'} {tmp_path / 'x.png'}": "was trained on spectrograms from files",
    }.items():
        shown = CliRunner().invoke(app, command.split())
        assert line in shown.stderr
        assert (shown.exit_code, shown.stderr.count("\n")) == (2, 1)
    with pytest.raises(ValueError, match=r"give waveform=False \(--log-mel\)"):
        to_onnx(model, tmp_path / "other.onnx")


def test_workers_collect_nothing_of_the_process_above(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session of onnxruntime among it would wait there for threads that are not there: training hung."""

    class Left:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            (tmp_path / f"collected in {os.getpid()}").touch()

    def collecting(*arguments: Any, **options: Any) -> torch.Tensor:
        gc.collect()
        (tmp_path / f"read in {os.getpid()}").touch()
        return read_clip(*arguments, **options)

    monkeypatch.setattr("fastloaa.data.loader.read_clip", collecting)
    gc.disable()
    try:
        Left()
        train(small_recipe(folder, epochs=1, workers=1, frames=32, mel_bins=BINS), tmp_path / "run", console=QUIET)
    finally:
        gc.enable()
    assert len(list(tmp_path.glob("read in *"))) >= 4  # those that measure, train, validate and test
    gc.collect()
    assert [path.name for path in tmp_path.glob("collected in *")] == [f"collected in {os.getpid()}"]


def test_a_table_of_them(folder: Path, tmp_path: Path) -> None:
    rows = [f"{path},{path.parent.name},{('train', 'test')[i % 2]}" for i, path in enumerate(folder.rglob("*.np?"))]
    (tmp_path / "table.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    result = train(small_recipe(tmp_path / "table.csv", epochs=1, mel_bins=BINS), tmp_path / "run", console=QUIET)
    assert result.train_clips == 18


def test_reading(tmp_path: Path) -> None:
    values = np.arange(40, dtype=np.float64).reshape(10, 4)
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "b.npz", labels=np.zeros(3), log_mel=values)
    for name in ("a.npy", "b.npz"):
        assert log_mel_shape(tmp_path / name) == (10, 4)
        assert torch.equal(load_log_mel(tmp_path / name, 2, 5), torch.from_numpy(values[2:5]).float())
        clip = Clip(tmp_path / name, (0,), start=0.02, stop=0.05)
        assert torch.equal(read_clip(clip), torch.from_numpy(values[2:5]).float())


def _nan() -> NDArray[np.float32]:
    values = np.zeros((5, 4), dtype=np.float32)
    values[2, 1] = np.nan
    return values


BROKEN: dict[str, tuple[str, Any]] = {
    r"shape \[5\], expected \[frames, mel_bins\]$": ("x.npy", np.zeros(5)),
    r"shape \[1, 5, 4\], expected \[frames, mel_bins\]; take the axis of channels away": ("x.npy", np.zeros((1, 5, 4))),
    r"shape \[0, 4\], expected": ("x.npy", np.zeros((0, 4))),
    r"shape \[80, 900\], expected .* if it lies the other way, save array\.T": ("x.npy", np.zeros((80, 900))),
    r"holds int64, expected a log-mel in floating point": ("x.npy", np.zeros((5, 4), dtype=int)),
    r"not an array of numbers in NumPy's format \(.*objects": ("x.npy", np.array([[{}]], dtype=object)),
    r"holds NaN or infinite values": ("x.npy", _nan()),
    r"holds the arrays one, two; expected one, or one that is called log_mel": ("x.npz", {"one": 1.0, "two": 2.0}),
    r"not an array of numbers": ("x.npy", b"not an array"),
    r"not an array of numbers in NumPy's": ("x.npz", b"PK not an archive"),
    r"no such file": ("x.npy", None),
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_file_that_is_none_is_one_line(tmp_path: Path, message: str) -> None:
    name, content = BROKEN[message]
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        np.savez(path, **content)
    elif content is not None:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(AudioError, match=message) as caught:
        load_log_mel(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_cut_files(tmp_path: Path, suffix: str) -> None:
    """At every tenth byte, and with a header that promises more than the file has."""
    path = tmp_path / f"x.{suffix}"
    values = np.random.default_rng(0).normal(size=(6, 4))
    (np.save if suffix == "npy" else np.savez_compressed)(path, values)
    whole = path.read_bytes()
    for end in range(0, len(whole) - 1, 10):
        path.write_bytes(whole[:end])
        with pytest.raises(AudioError):
            load_log_mel(path)
    path.write_bytes(whole.replace(b"(6, 4)", b"(10**11, 4)") if suffix == "npy" else whole[:-30])
    with pytest.raises(AudioError):
        load_log_mel(path)


def test_broken_ones_are_left_out_and_named(folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for kind in range(2):
        (tmp_path / "data" / f"class{kind}").mkdir(parents=True)
        for number in range(6):
            np.save(tmp_path / "data" / f"class{kind}" / f"{number}.npy", spectrogram(rng, kind))
    clip = load_splits(tmp_path / "data").train[0].path
    values = np.load(clip)
    values[0, 0] = np.inf
    np.save(clip, values)
    result = train(small_recipe(tmp_path / "data", epochs=1), tmp_path / "run", console=QUIET)
    assert [line.partition(": ")[0] for line in result.broken_files] == [str(clip)]


def test_what_does_not_go_together(folder: Path, run: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed.csv"
    tone = write_tone(tmp_path / "tone.wav")
    rows = [f"{path},{path.parent.name},{('train', 'test')[i % 2]}" for i, path in enumerate(folder.rglob("*.npy"))]
    mixed.write_text("\n".join(["path,label,split", *rows, f"{tone},class0,train"]) + "\n")
    with pytest.raises(DataError, match=r"both recordings, such as .*tone\.wav, and spectrograms, such as .*\.npy"):
        train(small_recipe(mixed), tmp_path / "run", console=QUIET)
    other = tmp_path / "other.npy"
    np.save(other, np.zeros((40, 64), dtype=np.float32))
    for split in ("train", "test"):  # not only when the run is over
        mixed.write_text("\n".join(["path,label,split", *rows, f"{other},class0,{split}"]) + "\n")
        with pytest.raises(DataError, match=r"different numbers of mel bins: .*\.npy has 48, .*other\.npy has 64"):
            train(small_recipe(mixed), tmp_path / "run", console=QUIET)
    clips = [*load_splits(folder).test, Clip(other, (0,))]
    found = evaluate(load_run(run), clips)
    assert (found.clips, found.broken) == (
        len(clips) - 1,
        (f"{other}: has 64 mel bins, expected 48; make it as the others are",),
    )
    for changes, message in (
        ({"mel_bins": 64}, "spectrograms of 48 mel bins, the recipe says 64"),
        ({"front_end": "epic-sounds"}, "of spectrograms from files, front_end 'epic-sounds' is for recordings"),
        ({"sample_rate": 200}, "times count 100 frames a second, the recipe says sample_rate 200; leave it out"),
    ):
        with pytest.raises(OptionError, match=message):
            train(small_recipe(folder, **changes), tmp_path / "run", console=QUIET)
    tones = tmp_path / "tones"
    for kind in range(2):
        for number in range(5):
            write_tone(tones / f"{kind}" / f"{number}.wav", 300 * (kind + 1))
    with pytest.raises(OptionError, match="is of recordings, front_end 'log-mel' is for spectrograms from files"):
        train(small_recipe(tones, front_end="log-mel"), tmp_path / "run", console=QUIET)
    with pytest.raises(DataError, match=r"the model was made for spectrograms from files, and .* is of recordings"):
        evaluate(load_run(run), load_splits(tones).test)
    np.save(tones / "0" / "0.npy", np.zeros(3))  # beside sounds they are something else
    assert all(clip.path.suffix == ".wav" for clip in load_splits(tones).train)


@pytest.mark.parametrize("settings", [{}, {"sample_rate": 100}, {"sample_rate": 40}, {"sample_rate": 16000}])
def test_all_frames_are_heard_at_any_rate(folder: Path, settings: dict[str, int]) -> None:
    """Of a model that was built by hand, and whose front end may count time otherwise."""
    model = small_ast(3, 32, front_end="log-mel", mel_bins=BINS, **settings)
    clips = load_splits(folder).test
    expected = torch.stack([read_clip(clip)[:32] for clip in clips if len(read_clip(clip)) >= 32])
    dataset = clip_dataset(model.front_end, clips, 3)
    heard = [dataset[index].waveform for index in range(len(clips))]
    torch.testing.assert_close(torch.stack([each for each in heard if len(each) == 32]), expected)
    assert len(expected) >= 3
    last = [dataset[index, 1.0].waveform for index in range(len(clips)) if dataset.is_cut(index)]
    ends = [read_clip(clip)[-32:] for clip in clips if len(read_clip(clip)) > 32]
    torch.testing.assert_close(torch.stack(last), torch.stack(ends))


def test_the_front_end_pads_and_covers_with_the_mean() -> None:
    front_end = StoredLogMel(5, 3, mean=-30.0, std=5.0)
    log_mel = torch.randn(2, 4, 3) * 5 - 30
    features = front_end(log_mel, torch.tensor([4, 2]))
    assert torch.equal(features[0, 4:], torch.zeros(1, 3))
    assert torch.equal(features[1, 2:], torch.zeros(3, 3))
    torch.testing.assert_close(features[1, :2], (log_mel[1, :2] + 30) / 10)
    assert torch.equal(front_end(log_mel, augment=torch.zeros_like), torch.zeros(2, 5, 3))
    torch.testing.assert_close(front_end(torch.cat([log_mel, log_mel], 1))[0, 4], (log_mel[0, 0] + 30) / 10)


def test_mixup_of_spectrograms() -> None:
    """As for each clip and its partner, with what is beyond a partner's end silent."""
    x, lengths = torch.randn(3, 6, 2), torch.tensor([6, 3, 5])
    targets = torch.eye(3)
    mixed, shares = mixup(x, targets, 1.0, 1.0, lengths, silence=-7.0)
    for row in range(3):
        own = shares[row, row].item()
        partner = int((shares[row] * (torch.arange(3) != row)).argmax()) if own < 1 else row
        silent = torch.where(torch.arange(6)[:, None] < lengths[partner], x[partner], -7.0)
        expected = own * x[row] + (1 - own) * silent
        torch.testing.assert_close(mixed[row, : lengths[row]], expected[: lengths[row]])
        assert not mixed[row, lengths[row] :].any()
