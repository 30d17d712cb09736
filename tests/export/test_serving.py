"""The server's answers: those of `Classifier`, or one line; in-process, by Starlette's client."""

import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from fastloaa.errors import ArgumentError
from fastloaa.export import Classifier, to_onnx
from helpers.onnx_files import write_listener
from helpers.serving import FILES, LABELS, LIMITS, check, flac
from helpers.small import SMALL, small_ast
from helpers.sounds import encoded, noise

pytest.importorskip("fastapi", reason="needs pip install 'fastloaa[serve]'")
from starlette.testclient import TestClient

from fastloaa.export.serving.app import create_app

pytestmark = pytest.mark.usefixtures("nothing_stays")


@pytest.fixture(scope="module")
def client(served: dict[str, Classifier]) -> Iterator[TestClient]:
    with TestClient(create_app(served, LIMITS), raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("form", [False, True], ids=["body", "form"])
def test_any_sound_file(
    name: str, form: bool, client: TestClient, served: dict[str, Classifier], tmp_path: Path
) -> None:
    for model, classifier in served.items():
        sent: dict[str, Any] = {"files": {"file": (name, FILES[name])}} if form else {"content": FILES[name]}
        response = client.post("/predict", params={"model": model}, **sent)
        assert response.status_code == 200, response.text
        assert response.json()["model"] == model
        check(response.json(), classifier, FILES[name], tmp_path)
        assert {each["label"] for each in response.json()["top"]} <= set(LABELS[model])


def test_options_are_the_classifiers(client: TestClient, served: dict[str, Classifier], tmp_path: Path) -> None:
    sound = flac(noise(30_000))
    for options in ({"top": 1}, {"threshold": 0.2}, {"top": 4, "hop": 0.1}, {"pool": "max", "top": 2}):
        answer = client.post("/predict", params={"model": "rooms", **options}, content=sound).json()  # type: ignore[dict-item]
        check(answer, served["rooms"], sound, tmp_path, **options)
        assert "timeline" not in answer


def test_timeline(client: TestClient, served: dict[str, Classifier], tmp_path: Path) -> None:
    (tmp_path / "sound").write_bytes(sound := flac(noise(30_000)))
    params = {"model": "animals", "timeline": "true", "hop": 0.2, "top": 3}
    answer = client.post("/predict", params=params, content=sound).json()
    expected = list(served["animals"].timeline(tmp_path / "sound", 0.2))
    assert len(expected) == 8
    assert [(each["start"], each["end"]) for each in answer["timeline"]] == [(w.start, w.end) for w in expected]
    for found, window in zip(answer["timeline"], expected, strict=True):
        named = served["animals"].named(window.probabilities, 3)
        assert [each["label"] for each in found["top"]] == [label for label, _ in named]
        assert [each["probability"] for each in found["top"]] == pytest.approx([p for _, p in named], abs=1e-5)


WRONG: dict[str, tuple[bytes, dict[str, Any], int, str]] = {
    "empty": (b"", {}, 400, "the recording is empty, 0 bytes; send"),
    "no sound": (b"not a sound" * 20, {}, 422, "the recording: not a sound file"),
    "cut": (FILES["float wav"][:-1000], {}, 422, "the recording: truncated"),
    "no samples": (encoded(np.zeros(0), 16000, "WAV"), {}, 422, "the recording: holds no samples"),
    "too short": (
        encoded(noise(399), 16000, "WAV"), {}, 422,
        "the recording: 399 samples at 16000 Hz; the model looks at 400 and more",
    ),
    "NaN": (encoded(np.full(99, np.nan), 16000, "WAV", "FLOAT"), {}, 422, "the recording: holds NaN or infinite"),
    "NaN at the end": (
        encoded(np.append(noise(30_000), np.nan), 16000, "WAV", "FLOAT"), {}, 422, "the first at 1.875 s",
    ),
    "far too loud": (
        encoded(np.full(999, 1e30), 16000, "WAV", "FLOAT"), {}, 422, "the model's answer is not a number; expected",
    ),
    "too large": (bytes((1 << 20) + 1), {}, 413, "more than 1048576 bytes"),
    "too long": (flac(np.zeros(5 * 16000 + 1)), {}, 413, "the recording: longer than 5 s, the most here"),
    "much too long": (flac(np.zeros(500 * 16000)), {}, 413, "the recording: longer than 5 s"),
    "unknown model": (FILES["silence"], {"model": "stars"}, 404, "no model 'stars'; there is 'animals', 'rooms'"),
    "which model": (FILES["silence"], {"model": None}, 422, "which model? There are 'animals', 'rooms'"),
    "no class": (FILES["silence"], {"top": 0}, 422, "top: input should be greater than or equal to 1, got '0'"),
    "no number": (FILES["silence"], {"threshold": "nan"}, 422, "threshold: input should be"),
    "not a pool": (FILES["silence"], {"pool": "min"}, 422, "pool: input should be 'mean' or 'max', got 'min'"),
    "misspelt": (FILES["silence"], {"treshold": 0.5}, 422, "treshold: extra inputs are not permitted"),
    "hop too short": (FILES["silence"], {"hop": 0.001}, 422, "hop: from 0.05 to 0.5 s"),
    "hop too long": (FILES["silence"], {"hop": 1}, 422, "hop: from 0.05 to 0.5 s"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_answered_is_one_line(case: str, client: TestClient) -> None:
    content, params, status, line = WRONG[case]
    asked = {name: value for name, value in ({"model": "animals"} | params).items() if value is not None}
    response = client.post("/predict", params=asked, content=content)
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    assert line in response.json()["error"]
    assert "\n" not in response.json()["error"]
    assert "fastloaa-" not in response.text  # names of temporary files are nobody's business


def test_too_large_without_a_length(client: TestClient) -> None:
    """In chunks, whose sum is not known before."""
    chunks = (bytes(1 << 16) for _ in range(17))
    response = client.post("/predict?model=animals", content=chunks)
    assert (response.status_code, list(response.json())) == (413, ["error"])


FORMS: dict[str, tuple[dict[str, Any], int, str]] = {
    "its name": ({"files": {"file": ("a\\b/clip\n.wav", b"no sound")}}, 422, "clip%0A.wav: not a sound file"),
    "no file": ({"files": {"file": (None, "text")}}, 400, "the form holds no file"),
    "two files": ({"files": [("file", b"1"), ("file", b"2")]}, 400, "the form cannot be read (Too many files"),
    "empty file": ({"files": {"file": ("clip.wav", b"")}}, 400, "clip.wav is empty, 0 bytes"),
    "too large": ({"files": {"file": ("clip.wav", bytes(1 << 20))}}, 413, "more than 1048576 bytes"),
    "no form": (
        {"content": b"?", "headers": {"content-type": "multipart/form-data"}}, 400, "the form cannot be read (Missing",
    ),
    "cut form": (
        {"content": b"--x\r\nConten", "headers": {"content-type": "multipart/form-data; boundary=x"}}, 400, "the form",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FORMS)
def test_forms_that_cannot_be_answered(case: str, client: TestClient) -> None:
    sent, status, line = FORMS[case]
    response = client.post("/predict?model=animals", **sent)
    assert response.status_code == status, response.text
    assert line in response.json()["error"]


def test_other_addresses_say_which_there_are(client: TestClient) -> None:
    for response, status in ((client.get("/"), 404), (client.get("/predict"), 405), (client.get("/docs"), 404)):
        assert response.status_code == status
        assert "there are POST /predict, GET /models" in response.json()["error"]


def test_sixteen_at_once_have_their_own_answers(
    client: TestClient, served: dict[str, Classifier], tmp_path: Path
) -> None:
    """Of two served and some lengths, broken ones between them."""
    names = sorted(served)

    def ask(number: int) -> None:
        folder = tmp_path / str(number)
        folder.mkdir()
        for turn in range(4):
            seed = 100 * number + turn
            name, samples = names[seed % 2], (2000, 8000, 20_000, 8000)[(number + turn) % 4]
            sound = flac(noise(samples, seed=seed) * (1 + seed % 7) / 8)
            if number % 4 == 3 and turn == 2:
                assert client.post("/predict", params={"model": name}, content=sound[:200]).status_code == 422
            answer = client.post("/predict", params={"model": name, "top": 4}, content=sound)
            check(answer.json(), served[name], sound, folder, top=4)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(ask, range(16)))


def test_a_model_of_spectrograms_is_not_served(served: dict[str, Classifier], tmp_path: Path) -> None:
    """Told at once, not to each request."""
    model = small_ast(2, front_end="log-mel", backbone_options=SMALL | {"depth": 1})
    to_onnx(model, tmp_path / "stored.onnx", waveform=False)
    with pytest.raises(ArgumentError, match=r"stored: the model was trained on spectrograms .* cannot read sounds"):
        create_app(served | {"stored": Classifier(tmp_path / "stored.onnx")})


def test_what_there_is_to_ask(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok", "models": ["animals", "rooms"]}
    about = client.get("/models").json()
    assert {name: tuple(each["labels"]) for name, each in about.items()} == LABELS
    assert about["rooms"]["window"] == 0.5
    described = json.dumps(client.get("/openapi.json").json())
    assert "multipart/form-data" in described
    assert "Least probability of a class" in described


def test_several_labels_to_a_clip(tmp_path: Path) -> None:
    classifier = Classifier(write_listener(tmp_path / "tags.onnx", ("a", "b", "c", "d"), 3, multi_label=True))
    with TestClient(create_app({"tags": classifier})) as client:
        for seed in range(3):
            sound = flac(noise(9000, seed=seed))
            check(client.post("/predict", content=sound).json(), classifier, sound, tmp_path)


def test_no_model_is_no_server() -> None:
    with pytest.raises(ArgumentError, match="at least one model"):
        create_app({})


def test_sounds_of_these_tests_are_sounds() -> None:
    """What is meant to be read is: a test of refusals proves nothing with files that are broken otherwise."""
    for content in FILES.values():
        samples, _ = soundfile.read(io.BytesIO(content))
        assert np.isfinite(samples).all()
