"""fastloaa export: from a run's folder to an ONNX file, and one line for what is wrong."""

import re
from pathlib import Path

import onnx
import pytest
import soundfile
import torch
from click.testing import Result
from typer.testing import CliRunner

from fastloaa import AST
from fastloaa.audio import FrontEnd, load_audio
from fastloaa.cli import app
from fastloaa.cli.export import recordings
from fastloaa.export import Classifier
from fastloaa.export.opsets import DEFAULT, OPSETS
from fastloaa.export.verify import verify
from helpers.onnx_files import write_listener
from helpers.trained_run import LABELS, write_run


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def trained(tmp_path: Path) -> tuple[AST, Path]:
    """A finished run."""
    return write_run(tmp_path)


@torch.no_grad()
def test_writes_a_file_that_answers_as_the_run_does(trained: tuple[AST, Path], tmp_path: Path) -> None:
    model, folder = trained
    path = tmp_path / "out" / "model.onnx"
    result = run("export", folder, path)
    assert result.exit_code == 0, result.output
    size, difference = result.stdout.splitlines()
    assert size.startswith(f"{path}: {path.stat().st_size / 1e6:.1f} MB, fp32, made in ")
    assert size.endswith(f" s; opset {DEFAULT}, for onnxruntime {OPSETS[DEFAULT]} and newer")
    found = re.fullmatch(
        r"largest difference from PyTorch: (\S+) \(onnxruntime on the CPU, batches of 1, 3\)", difference
    )
    assert found
    assert 0 < float(found[1]) < 1e-5

    verify(path, model)
    soundfile.write(tmp_path / "noise.wav", torch.randn(12_000).numpy() * 0.1, 16000)
    (prediction,) = Classifier(path).classify([tmp_path / "noise.wav"], top=1)
    expected = model(model.front_end(load_audio(tmp_path / "noise.wav")[None]))[0]
    assert prediction.labels == (LABELS[expected.argmax()],)


def test_log_mel_and_weights_that_have_moved(trained: tuple[AST, Path], tmp_path: Path) -> None:
    model, folder = trained
    moved = (tmp_path / "backbone.safetensors").rename(tmp_path / "moved.safetensors")
    assert run("export", folder, tmp_path / "model.onnx").exit_code == 2
    result = run("export", folder, tmp_path / "model.onnx", "--log-mel", "--weights", moved)
    assert result.exit_code == 0, result.output
    assert Classifier(tmp_path / "model.onnx").metadata.input == "log_mel"
    verify(tmp_path / "model.onnx", model)


def test_a_bundle_in_8_bits(trained: tuple[AST, Path], tmp_path: Path) -> None:
    """Calibrated on a folder, of which a broken file is named and left out."""
    for number in range(3):
        (tmp_path / "sounds" / "deep").mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "sounds" / "deep" / f"{number}.wav", torch.randn(12_000).numpy() * 0.1, 8000)
    (tmp_path / "sounds" / "broken.wav").write_text("not a sound")
    bundle = tmp_path / "bundle"
    given = ("--bundle", bundle, "--precision", "int8", "--calibration", tmp_path / "sounds", "--force")
    result = run("export", trained[1], *given)
    assert result.exit_code == 0, result.output
    size, agreement, difference, where, page = result.stdout.splitlines()
    assert page.startswith("its page listens in a browser once it has onnxruntime-web: export with --web npm")
    assert size.startswith(f"{bundle / 'model.onnx'}: ")
    assert ", int8, made in " in size
    assert re.fullmatch(r"names the class that PyTorch names for \d+\.\d% of 3 recordings", agreement)
    assert re.fullmatch(r"largest difference from PyTorch: \S+ \(onnxruntime on the CPU, recordings\)", difference)
    assert where.startswith(f"{bundle}: README.md says")
    assert result.stderr.startswith(f"left out: {tmp_path / 'sounds' / 'broken.wav'}: not a sound file")
    assert (bundle / "triton" / "bundle" / "1" / "model.onnx").is_file()
    assert Classifier(bundle / "model.onnx").metadata.precision == "int8"


def test_8_bits_without_recordings_for_an_old_runtime_with_the_embedding(
    trained: tuple[AST, Path], tmp_path: Path
) -> None:
    options = ("--precision", "int8-dynamic", "--opset", "17", "--embedding", "--log-mel")
    result = run("export", trained[1], tmp_path / "model.onnx", *options)
    assert result.exit_code == 0, result.output
    size, difference = result.stdout.splitlines()
    assert size.endswith(" s; opset 17, for onnxruntime 1.17 and newer")
    assert difference.endswith("(onnxruntime on the CPU, batches of 1, 3)")
    metadata = Classifier(tmp_path / "model.onnx").metadata
    assert (metadata.opset, metadata.precision, metadata.embedding) == (
        17,
        "int8-dynamic",
        trained[0].backbone.embed_dim,
    )
    refused = run("export", trained[1], tmp_path / "other.onnx", "--opset", "19")
    assert (refused.exit_code, refused.stderr.startswith("error: opset is one of 17, 18,")) == (2, True)


def test_beside_the_blocks(trained: tuple[AST, Path], tmp_path: Path) -> None:
    assert run("export", trained[1], tmp_path / "model.onnx", "--no-merge", "--log-mel").exit_code == 0
    operators = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert operators.count("MatMul") == 5 + 2 + 4  # of one block, of its attention, and two adapters'
    verify(tmp_path / "model.onnx", trained[0])


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "give a file to write, or --bundle and a folder"),
        (["model.onnx", "--precision", "int8"], "int8 needs --calibration and a folder of recordings"),
        (["model.onnx", "--precision", "fp16"], "fp16 needs --calibration and a folder of recordings"),
        (["--bundle", "b", "--log-mel"], "a bundle's model reads waveforms; leave --log-mel out"),
        (["model.onnx", "--web", "npm"], "--web is for the page of a bundle; give --bundle and a folder"),
    ],
)
def test_options_that_do_not_go_together(options: list[str], complaint: str, tmp_path: Path) -> None:
    result = run("export", tmp_path, *options)
    assert (result.exit_code, result.stderr) == (2, f"error: {complaint}\n")


def test_a_missing_archive_is_told_before_the_long_work(
    trained: tuple[AST, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastloaa.export.to_onnx", lambda *_, **__: pytest.fail("was translated"), raising=False)
    result = run("export", trained[1], "--bundle", tmp_path / "b", "--web", tmp_path / "nowhere.tgz")
    assert result.exit_code == 2
    assert "nowhere.tgz: no such file; expected the archive that `npm pack onnxruntime-web@" in result.stderr
    assert not (tmp_path / "b").exists()


def test_at_most_a_hundred_recordings_spread_over_the_folder(tmp_path: Path) -> None:
    for number in range(250):
        soundfile.write(tmp_path / f"{number:03}.wav", [number / 1000] * 400, 16000)
    front_end = FrontEnd(64)
    clips = recordings(tmp_path, front_end)
    assert [round(1000 * float(clip[0])) for clip in clips] == list(range(0, 250, 3))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "broken.wav").touch()
    with pytest.raises(FileNotFoundError, match="no recording in it can be read"):
        recordings(tmp_path / "empty", front_end)


def test_recordings_too_short_for_an_answer_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """300 samples at 8 kHz are 600 at the model's rate."""
    for name, samples, rate in (("a.wav", 399, 16000), ("b.wav", 300, 8000)):
        soundfile.write(tmp_path / name, torch.randn(samples).numpy() * 0.1, rate)
    assert [len(clip) for clip in recordings(tmp_path, FrontEnd(64))] == [600]
    line = f"left out: {tmp_path / 'a.wav'}: 399 samples at 16000 Hz; the model looks at 400 and more\n"
    assert capsys.readouterr().err == line


def test_of_a_long_recording_the_ranges_are_those_of_what_is_heard(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", torch.randn(200_000).numpy() * 0.1, 44_100)
    (clip,) = recordings(tmp_path, FrontEnd(64))
    assert torch.equal(clip, load_audio(tmp_path / "a.wav")[: FrontEnd(64).samples])


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    result = run("export", tmp_path, tmp_path / "model.onnx")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {tmp_path}: no recipe.yaml in it")
    assert len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_predict_says_in_one_line_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("not a model")
    soundfile.write(tmp_path / "noise.wav", torch.randn(12_000).numpy() * 0.1, 16000)
    write_listener(tmp_path / "good.onnx", ("a", "b"))
    for model, sound, complaint in (
        ("good.onnx", "*.ogg", "*.ogg: no file matches"),
        ("model.onnx", "noise.wav", "model.onnx: onnxruntime cannot open it"),
        ("none.onnx", "noise.wav", "none.onnx: no such file"),
    ):
        result = run("predict", tmp_path / model, tmp_path / sound)
        assert result.exit_code == 2
        assert result.stderr.startswith(f"error: {tmp_path}/{complaint}")
        assert len(result.stderr.splitlines()) == 1
