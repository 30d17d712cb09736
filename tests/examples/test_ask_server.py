"""The example of a server: another process answers as the classifier does in this one."""

from pathlib import Path

import pytest

from fastloaa.export import Classifier
from helpers.onnx_files import write_listener
from helpers.sounds import encoded, noise

pytest.importorskip("fastapi", reason="needs pip install 'fastloaa[serve]'")


@pytest.mark.slow
def test_what_the_server_says_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "examples")
    import ask_server

    model = write_listener(tmp_path / "birds.onnx", ("wren", "crow", "owl"))
    sound, broken = tmp_path / "long.flac", tmp_path / "broken.wav"
    sound.write_bytes(encoded(noise(16_000), 16000, "FLAC"))
    broken.write_bytes(b"no sound")
    monkeypatch.setattr("sys.argv", ["ask_server", str(model), str(sound), str(broken)])
    ask_server.main()
    first, *windows, last = capsys.readouterr().out.splitlines()
    (expected,) = Classifier(model).classify(sound, top=3)
    named = zip(expected.labels, expected.probabilities, strict=True)
    assert first == f"{sound}: " + ", ".join(f"{label} {probability:.1%}" for label, probability in named)
    assert [line.split()[0] for line in windows] == ["0.00", "0.25", "0.50"]
    assert last.startswith(f"{broken}: the recording: not a sound file")
