"""fastloaa serve: models by name, refusals before it listens, and an end that leaves nobody without an answer."""

import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fastloaa.cli import app
from fastloaa.cli.serve import named_models
from fastloaa.errors import ArgumentError
from fastloaa.export import Classifier
from helpers.onnx_files import write_listener
from helpers.sounds import encoded, noise

pytest.importorskip("fastapi", reason="needs pip install 'fastloaa[serve]'")

LABELS = ("dog", "crow", "frog")


@pytest.fixture
def as_in_a_terminal() -> Iterator[None]:
    """What starts the tests in the background (nohup, &) makes them, and their children, ignore some signals."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_models_are_called_as_their_files_or_as_told(tmp_path: Path) -> None:
    (tmp_path / "a=b.onnx").touch()
    found = named_models(["runs/birds.onnx", "rooms=x/model.onnx", str(tmp_path / "a=b.onnx")])
    assert found == {
        "birds": Path("runs/birds.onnx"),
        "rooms": Path("x/model.onnx"),
        "a=b": tmp_path / "a=b.onnx",
    }
    with pytest.raises(ArgumentError, match=r"a/model\.onnx and b/model\.onnx are both called 'model'; name one"):
        named_models(["a/model.onnx", "b/model.onnx"])
    for wrong in ("=model.onnx", "birds=", ""):
        with pytest.raises(ArgumentError, match="expected an ONNX file, or NAME=FILE"):
            named_models([wrong])


def test_what_cannot_be_served_is_one_line(tmp_path: Path) -> None:
    model = str(write_listener(tmp_path / "m.onnx", LABELS))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments, line in (
            ([str(tmp_path / "none.onnx")], "no such file; expected an ONNX file"),
            ([model, "--port", str(port)], f"cannot listen on 127.0.0.1, port {port}"),
            ([model, "--host", "203.0.113.1"], "cannot listen on 203.0.113.1, port 8000"),  # of documentation's own
            ([model, "--max-seconds", "0"], "max_seconds is above 0"),
        ):
            result = CliRunner().invoke(app, ["serve", *arguments])
            assert result.exit_code == 2
            assert result.stderr.startswith("error: ")
            assert line in result.stderr
            assert result.stderr.count("\n") == 1


def test_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = CliRunner().invoke(app, ["serve", str(tmp_path / "m.onnx")])
    assert result.exit_code == 2
    assert result.stderr == "error: uvicorn is not installed; pip install 'fastloaa[serve]'\n"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_told_to_end_it_answers_what_was_asked(number: signal.Signals, tmp_path: Path, as_in_a_terminal: None) -> None:
    """Half of a recording has arrived when the signal does: the other half is still taken, and answered."""
    model = write_listener(tmp_path / "m.onnx", LABELS)
    sound = tmp_path / "sound.wav"
    sound.write_bytes(content := encoded(noise(30_000), 16000, "WAV"))
    command = [sys.executable, "-m", "fastloaa.cli", "serve", str(model), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        try:
            host, port = server.stdout.readline().split()[0].removeprefix("http://").split(":")
            assert host == "127.0.0.1"
            ended, asked = http.client.HTTPConnection(host, int(port)), http.client.HTTPConnection(host, int(port))
            ended.request("GET", "/health")
            assert json.load(ended.getresponse())["models"] == ["m"]
            asked.putrequest("POST", "/predict?top=3")
            asked.putheader("Content-Length", str(len(content)))
            asked.endheaders(content[:5000])
            in_progress = ""
            while "fastloaa_requests_in_progress 1.0" not in in_progress:
                ended.request("GET", "/metrics")
                in_progress = ended.getresponse().read().decode()
            server.send_signal(number)
            assert ended.sock.recv(1) == b""  # closed: it has begun to end
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((host, int(port)))
            asked.send(content[5000:])
            response = asked.getresponse()
            assert response.status == 200
            answer = json.load(response)
            assert server.wait(60) == 0
            assert server.stdout.read() == ""
            assert server.stderr.read() == ""
        finally:
            server.kill()
    (expected,) = Classifier(model).classify(sound)
    assert [each["label"] for each in answer["top"]] == list(expected.labels)
    assert [each["probability"] for each in answer["top"]] == pytest.approx(expected.probabilities, abs=1e-5)
