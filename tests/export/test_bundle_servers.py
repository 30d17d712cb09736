"""The bundle's model repositories, in NVIDIA's own definitions and in its server."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import onnxruntime
import pytest
import soundfile

from fastloaa.export import to_onnx, write_bundle
from fastloaa.export.bundle.servers import first_release
from helpers.bundles import LABELS, program
from helpers.small import SMALL, small_ast
from helpers.sounds import noise


def triton_python() -> Path:
    """The Python that nvidia-pytriton is installed for, in an environment of its own."""
    python = Path(sys.prefix) / "triton" / "bin" / "python"
    if not (python.parents[1] / "ready").is_file():
        pytest.skip("nvidia-pytriton is not installed: make triton")
    return python


@pytest.mark.parametrize("repository", ["triton", "triton-python"])
def test_triton_is_told_what_the_model_says(bundle: Path, repository: str) -> None:
    """Names, types and shapes without the batch, as Triton wants them of a model that batches."""
    config = (bundle / repository / "my_sounds" / "config.pbtxt").read_text()
    session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    found = re.findall(r'name: "(\w+)" data_type: TYPE_FP32 dims: \[ (-?\d+) \]', config)
    ports = [*session.get_inputs(), *session.get_outputs()]
    assert {port.type for port in ports} == {"tensor(float)"}
    assert {port.shape[0] for port in ports} == {"batch"}
    sizes = [port.shape[1] if isinstance(port.shape[1], int) else -1 for port in ports]
    assert found == [(port.name, str(size)) for port, size in zip(ports, sizes, strict=True)]


def test_triton_is_told_of_the_embedding(tmp_path: Path) -> None:
    model = small_ast(labels=LABELS, backbone_options=SMALL | {"depth": 1})
    to_onnx(model, tmp_path / "b" / "model.onnx", embedding=True)
    write_bundle(tmp_path / "b" / "model.onnx", tmp_path / "b")
    config = (tmp_path / "b" / "triton" / "b" / "config.pbtxt").read_text()
    assert re.findall(r'name: "(\w+)" data_type: TYPE_FP32 dims: \[ (-?\d+) \]', config)[1:] == [
        ("logits", "5"), ("probabilities", "5"), ("embedding", "48")
    ]  # fmt: skip


@pytest.mark.parametrize("repository", ["triton", "triton-python"])
def test_the_configuration_in_tritons_own_definitions(bundle: Path, repository: str) -> None:
    """By the protobuf messages that tritonclient carries."""
    code = """
import sys
from google.protobuf import json_format, text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig
print(json_format.MessageToJson(text_format.Parse(sys.stdin.read(), ModelConfig())))
"""
    text = (bundle / repository / "my_sounds" / "config.pbtxt").read_text()
    parsed = subprocess.run([triton_python(), "-c", code], input=text, capture_output=True, text=True, check=True)
    config = json.loads(parsed.stdout)
    assert (config["name"], config["maxBatchSize"]) == ("my_sounds", 32)
    assert config["backend"] == {"triton": "onnxruntime", "triton-python": "python"}[repository]
    assert config["input"] == [{"name": "waveform", "dataType": "TYPE_FP32", "dims": ["-1"]}]
    assert [output["name"] for output in config["output"]] == ["logits", "probabilities"]
    assert all(output["dims"] == ["5"] for output in config["output"])
    assert config["output"][1]["labelFilename"] == "labels.txt"
    assert int(config["dynamicBatching"]["maxQueueDelayMicroseconds"]) > 0
    if repository == "triton":
        (cuda,) = config["optimization"]["executionAccelerators"]["gpuExecutionAccelerator"]
        assert cuda == {"name": "cuda", "parameters": {"use_tf32": "0"}}


def test_which_release_carries_an_onnxruntime() -> None:
    """The first, at least as new; None is not known."""
    assert first_release("1.23") == "25.08"
    assert first_release("1.24") == "26.02"
    assert first_release("1.25") == "26.07"  # 1.27; no release had 1.25
    assert first_release("1.17") == "24.06"  # the first that can turn TF32 off
    assert first_release("99.0") is None


def ask(bundle: Path, sound: Path, folder: Path, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The bundle's script with a real ffmpeg; curl, unless it is given an address, shows what it is given."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / "ffmpeg").unlink(missing_ok=True)
    (folder / "bin" / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    if not more:
        (folder / "bin" / "curl").write_text('#!/bin/sh\necho "$@"\ncp "${5#@}" request.json\n')
        (folder / "bin" / "curl").chmod(0o755)
    given = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"} | environment
    return subprocess.run([bundle / "ask.sh", sound, *more], cwd=folder, capture_output=True, text=True, env=given)


@pytest.mark.parametrize(
    ("samples", "word"),
    [
        ([], ""),  # ffmpeg's own words
        ([0.1] * 399, "399 samples at 16000 Hz; the model looks at 400 and more"),
        ([0.1] * 500 + [np.nan], "NaN"),
        ([np.inf] + [0.1] * 500, "NaN or infinite"),
    ],
)
def test_nothing_is_sent_where_there_is_nothing_to_hear(
    bundle: Path, tmp_path: Path, samples: list[float], word: str
) -> None:
    soundfile.write(tmp_path / "sound.wav", np.array(samples), 16000, subtype="FLOAT")
    result = ask(bundle, tmp_path / "sound.wav", tmp_path)
    assert result.returncode != 0
    assert result.stdout == ""
    assert result.stderr
    assert word in result.stderr
    assert not (tmp_path / "request.json").exists()


def sent(folder: Path) -> np.ndarray:
    """The samples of what `ask` would send."""
    (tensor,) = json.loads((folder / "request.json").read_text())["inputs"]
    return np.array(tensor["data"])


@pytest.mark.parametrize("name", ["-my $(echo) 'sound'.wav", "2026-11-26T12:30.wav"])
def test_the_first_window_is_sent(bundle: Path, tmp_path: Path, name: str) -> None:
    """Also of a file whose name a shell would take apart, and ffmpeg for an address."""
    samples = noise(12_000)
    soundfile.write(tmp_path / name, samples, 16000, subtype="FLOAT")
    result = ask(bundle, Path(name), tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "http://localhost:8000/v2/models/my_sounds/infer" in result.stdout
    request = json.loads((tmp_path / "request.json").read_text())
    (tensor,) = request["inputs"]
    assert (tensor["name"], tensor["shape"], tensor["datatype"]) == ("waveform", [1, 10480], "FP32")
    np.testing.assert_allclose(tensor["data"], samples[:10480].astype(np.float32), rtol=1e-6)
    assert request["outputs"] == [{"name": "probabilities", "parameters": {"classification": 3}}]


@pytest.mark.parametrize(("channels", "subtype"), [(2, "PCM_16"), (2, "FLOAT"), (6, "PCM_24"), (9, "PCM_16")])
def test_channels_are_averaged(bundle: Path, tmp_path: Path, channels: int, subtype: str) -> None:
    """As all other clients do; ffmpeg's own way of making mono is louder."""
    soundfile.write(tmp_path / "sound.wav", noise(5000, channels), 16000, subtype=subtype)
    result = ask(bundle, tmp_path / "sound.wav", tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    stored, _ = soundfile.read(tmp_path / "sound.wav")
    np.testing.assert_allclose(sent(tmp_path), stored.mean(axis=1), atol=1e-6)


def test_numbers_are_those_of_json_in_any_country(bundle: Path, tmp_path: Path) -> None:
    """In German a shell's tools write 0,5."""
    locale = [program("localedef"), "-i", "de_DE", "-f", "UTF-8", tmp_path / "de_DE.UTF-8"]
    if subprocess.run(locale, capture_output=True, check=False).returncode:
        pytest.skip("the system has no sources of locales: Debian's locales")
    samples = noise(500)
    soundfile.write(tmp_path / "sound.wav", samples, 16000, subtype="FLOAT")
    result = ask(bundle, tmp_path / "sound.wav", tmp_path, LOCPATH=str(tmp_path), LC_ALL="de_DE.UTF-8")
    assert result.returncode == 0, result.stderr
    np.testing.assert_allclose(sent(tmp_path), samples, rtol=1e-6)


@pytest.fixture(scope="module")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Triton with the bundle's `triton-python/`; its address."""
    python = triton_python()
    folder = tmp_path_factory.mktemp("triton")
    shutil.copytree(bundle, folder / "bundle", symlinks=True)
    (packages,) = python.parents[1].glob("lib/python*/site-packages")
    installed = packages / "pytriton" / "tritonserver"
    backend = folder / "backends" / "python"
    shutil.copytree(installed / "backends" / "python", backend)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy(installed / "python_backend_stubs" / version / "triton_python_backend_stub", backend)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    libraries = [str(packages / "nvidia_pytriton.libs"), str(sysconfig.get_config_var("LIBDIR"))]
    environment = os.environ | {
        "LD_LIBRARY_PATH": ":".join(libraries),
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(packages),
    }
    command = [
        str(installed / "bin" / "tritonserver"),
        f"--model-repository={folder / 'bundle' / 'triton-python'}",
        f"--backend-directory={folder / 'backends'}",
        "--http-address=127.0.0.1",
        f"--http-port={port}",
        "--allow-grpc=false",
        "--allow-metrics=false",
    ]
    address = f"http://127.0.0.1:{port}"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            wait_until_ready(address, process, folder / "log")
            yield address
        finally:
            process.terminate()
            process.wait(60)


def wait_until_ready(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{address}/v2/health/ready")
            return
        except (urllib.error.URLError, ConnectionError):
            if process.poll() is not None:
                break
            time.sleep(0.2)
    pytest.fail(f"tritonserver does not answer:\n{log.read_text()[-3000:]}")


def request(waveform: np.ndarray) -> bytes:
    """A request of the KServe protocol, ready to be sent."""
    tensor = {"name": "waveform", "shape": waveform.shape, "datatype": "FP32", "data": waveform.ravel().tolist()}
    return json.dumps({"inputs": [tensor]}).encode()


def answered(address: str, body: bytes) -> dict[str, np.ndarray]:
    with urllib.request.urlopen(f"{address}/v2/models/my_sounds/infer", body) as response:
        outputs: list[dict[str, Any]] = json.load(response)["outputs"]
    return {output["name"]: np.reshape(output["data"], output["shape"]) for output in outputs}


@pytest.mark.slow
def test_a_server_answers_as_the_session_does(bundle: Path, server: str) -> None:
    """Requests of several lengths and batches that come together, joined where their lengths are the same."""
    session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    shapes = [(batch, samples) for samples in (400, 5000, 10480, 20_000) for batch in (1, 1, 1, 1, 2, 3)]
    waveforms = [generator.normal(size=shape).astype(np.float32) for shape in shapes]
    bodies = [request(waveform) for waveform in waveforms]
    with ThreadPoolExecutor(len(bodies)) as together:
        answers = list(together.map(lambda body: answered(server, body), bodies))
    for waveform, answer in zip(waveforms, answers, strict=True):
        assert list(answer) == [port.name for port in session.get_outputs()]
        for given, expected in zip(answer.values(), session.run(None, {"waveform": waveform}), strict=True):
            np.testing.assert_allclose(given, expected, atol=1e-5)
    with urllib.request.urlopen(f"{server}/v2/models/my_sounds/stats") as response:
        (statistics,) = json.load(response)["model_stats"]
    assert int(statistics["inference_count"]) == sum(len(waveform) for waveform in waveforms)
    assert int(statistics["execution_count"]) < len(waveforms)  # some were joined


@pytest.mark.slow
def test_the_script_asks_a_server(bundle: Path, server: str, tmp_path: Path) -> None:
    program("curl")
    sound = noise(8000)
    soundfile.write(tmp_path / "sound.wav", sound, 16000, subtype="FLOAT")
    result = ask(bundle, tmp_path / "sound.wav", tmp_path, server)
    assert result.returncode == 0, result.stderr
    (output,) = json.loads(result.stdout)["outputs"]
    session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    (expected,) = session.run(["probabilities"], {"waveform": sound[None].astype(np.float32)})[0]
    for told, best in zip(output["data"], expected.argsort()[::-1], strict=False):
        probability, index, label = told.split(":", 2)
        assert (int(index), label) == (best, LABELS[best])
        assert float(probability) == pytest.approx(expected[best], abs=1e-5)
    assert len(output["data"]) == 3


@pytest.mark.slow
def test_a_server_says_what_it_does_not_take(server: str) -> None:
    """An error for that request alone."""
    with pytest.raises(urllib.error.HTTPError) as refused:
        answered(server, request(np.zeros((33, 400), np.float32)))  # more than the largest batch
    assert refused.value.code == 400
    with pytest.raises(urllib.error.HTTPError) as refused:
        answered(server, request(np.zeros((1, 399), np.float32)))
    assert "399 samples at 16000 Hz; the model looks at 400 and more" in refused.value.read().decode()
    assert answered(server, request(np.zeros((1, 400), np.float32)))["logits"].shape == (1, 5)
