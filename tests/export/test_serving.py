"""The server's answers: those of `Classifier`, or one line; in-process, by Starlette's client."""

import asyncio
import io
import json
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from fastloaa.errors import ArgumentError
from fastloaa.export import Classifier, to_onnx
from helpers.full_disk import files_of_at_most
from helpers.onnx_files import write_listener
from helpers.small import SMALL, small_ast
from helpers.sounds import encoded, noise

pytest.importorskip("fastapi", reason="needs pip install 'fastloaa[serve]'")
from starlette.testclient import TestClient

from fastloaa.export.serving.app import create_app
from fastloaa.export.serving.batching import Batcher
from fastloaa.export.serving.limits import Limits

LABELS = {"animals": ("dog", "crow", "frog"), "rooms": ("kitchen", "hall", "stairs [b]", "cellar")}
LIMITS = Limits(max_bytes=1 << 20, max_seconds=5, upload_seconds=60)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Classifier]:
    folder = tmp_path_factory.mktemp("models")
    return {
        name: Classifier(write_listener(folder / f"{name}.onnx", labels, seed))
        for seed, (name, labels) in enumerate(LABELS.items())
    }


@pytest.fixture(scope="module")
def client(models: dict[str, Classifier]) -> Iterator[TestClient]:
    with TestClient(create_app(models, LIMITS), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(autouse=True)
def nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever is answered, no temporary file outlives the request."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert not list(folder.iterdir())


def flac(samples: NDArray[np.float64], rate: int = 16000) -> bytes:
    return encoded(samples, rate, "FLAC")


def check(answer: dict[str, Any], classifier: Classifier, content: bytes, folder: Path, **options: Any) -> None:
    """The classes that the classifier names by itself, with its probabilities."""
    path = folder / "sound"
    path.write_bytes(content)
    (expected,) = classifier.classify(path, **options)
    assert expected.error is None
    assert [each["label"] for each in answer["top"]] == list(expected.labels)
    assert [each["probability"] for each in answer["top"]] == pytest.approx(expected.probabilities, abs=1e-5)
    assert answer["seconds"] == expected.seconds
    assert answer["heard"] == expected.heard


FILES = {
    "float wav": encoded(noise(4000), 16000, "WAV", "FLOAT"),
    "int16 stereo": encoded(noise(9000, 2), 16000, "WAV", "PCM_16"),
    "48 kHz": encoded(noise(30_000), 48000, "WAV", "PCM_16"),
    "192 kHz, 8 channels, flac": encoded(noise(8000, 8), 192_000, "FLAC"),
    "ogg, several windows": encoded(noise(40_000), 16000, "OGG"),
    "mp3": encoded(noise(22_050), 22_050, "MP3"),
    "one sample": encoded(noise(1), 16000, "WAV"),
    "silence": encoded(np.zeros(16_000), 16000, "WAV"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("form", [False, True], ids=["body", "form"])
def test_any_sound_file(
    name: str, form: bool, client: TestClient, models: dict[str, Classifier], tmp_path: Path
) -> None:
    for model, classifier in models.items():
        sent: dict[str, Any] = {"files": {"file": (name, FILES[name])}} if form else {"content": FILES[name]}
        response = client.post("/predict", params={"model": model}, **sent)
        assert response.status_code == 200, response.text
        assert response.json()["model"] == model
        check(response.json(), classifier, FILES[name], tmp_path)
        assert {each["label"] for each in response.json()["top"]} <= set(LABELS[model])


def test_options_are_the_classifiers(client: TestClient, models: dict[str, Classifier], tmp_path: Path) -> None:
    sound = flac(noise(30_000))
    for options in ({"top": 1}, {"threshold": 0.2}, {"top": 4, "hop": 0.1}, {"pool": "max", "top": 2}):
        answer = client.post("/predict", params={"model": "rooms", **options}, content=sound).json()  # type: ignore[dict-item]
        check(answer, models["rooms"], sound, tmp_path, **options)
        assert "timeline" not in answer


def test_timeline(client: TestClient, models: dict[str, Classifier], tmp_path: Path) -> None:
    (tmp_path / "sound").write_bytes(sound := flac(noise(30_000)))
    params = {"model": "animals", "timeline": "true", "hop": 0.2, "top": 3}
    answer = client.post("/predict", params=params, content=sound).json()
    expected = list(models["animals"].timeline(tmp_path / "sound", 0.2))
    assert len(expected) == 8
    assert [(each["start"], each["end"]) for each in answer["timeline"]] == [(w.start, w.end) for w in expected]
    for found, window in zip(answer["timeline"], expected, strict=True):
        named = models["animals"].named(window.probabilities, 3)
        assert [each["label"] for each in found["top"]] == [label for label, _ in named]
        assert [each["probability"] for each in found["top"]] == pytest.approx([p for _, p in named], abs=1e-5)


WRONG: dict[str, tuple[bytes, dict[str, Any], int, str]] = {
    "empty": (b"", {}, 400, "the recording is empty, 0 bytes; send"),
    "no sound": (b"not a sound" * 20, {}, 422, "the recording: not a sound file"),
    "cut": (FILES["float wav"][:-1000], {}, 422, "the recording: truncated"),
    "no samples": (encoded(np.zeros(0), 16000, "WAV"), {}, 422, "the recording: holds no samples"),
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
    client: TestClient, models: dict[str, Classifier], tmp_path: Path
) -> None:
    """Of two models and some lengths, broken ones between them."""
    names = sorted(models)

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
            check(answer.json(), models[name], sound, folder, top=4)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(ask, range(16)))


class Held:
    """A classifier that answers when it is let go, and records how many windows it was given at a time."""

    def __init__(self, classifier: Classifier) -> None:
        self.metadata, self.named = classifier.metadata, classifier.named
        self._run, self.check_hears = classifier.probabilities, classifier.check_hears
        self.entered, self.go, self.sizes = threading.Event(), threading.Event(), list[int]()

    def probabilities(self, rows: Any) -> NDArray[np.float32]:
        self.sizes.append(len(rows))
        self.entered.set()
        assert self.go.wait(60)
        return self._run(rows)


def test_requests_share_a_run_and_what_is_too_much_is_told_to_come_later(
    models: dict[str, Classifier], tmp_path: Path
) -> None:
    held = Held(models["animals"])
    app = create_app({"held": held}, Limits(max_requests=5, batch_size=5, max_delay=60))  # type: ignore[dict-item]
    sounds = [flac(noise(4000, seed=seed)) for seed in range(5)]
    with TestClient(app) as client, ThreadPoolExecutor(5) as threads:
        answers = [threads.submit(client.post, "/predict", content=sound) for sound in sounds]
        assert held.entered.wait(60)
        assert sample(client, "fastloaa_requests_in_progress") == 5
        busy = client.post("/predict", content=FILES["silence"])
        assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")
        assert "5 requests are in progress" in busy.json()["error"]
        assert client.get("/health").json() == {"status": "ok", "models": ["held"]}
        held.go.set()
        for sound, answer in zip(sounds, answers, strict=True):
            check(answer.result(60).json(), models["animals"], sound, tmp_path)
    assert held.sizes == [5]


def sample(client: TestClient, name: str, **labels: str) -> float:
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(response.text)
    found = [each for family in families for each in family.samples if each.name == name]
    return sum(each.value for each in found if labels.items() <= each.labels.items())


def test_metrics(models: dict[str, Classifier]) -> None:
    with TestClient(create_app(models, LIMITS)) as client:
        client.post("/predict?model=rooms", content=flac(noise(24_000)))  # windows of half a second, five of them
        client.post("/predict?model=rooms", content=b"no sound")
        client.post("/predict?model=stars", content=FILES["silence"])
        client.post("/predict?model=rooms&top=0", content=FILES["silence"])
        assert sample(client, "fastloaa_requests_total", model="rooms", status="200") == 1
        assert sample(client, "fastloaa_requests_total", status="422") == 2
        assert sample(client, "fastloaa_requests_total", model="", status="404") == 1
        assert sample(client, "fastloaa_requests_total") == 4
        assert sample(client, "fastloaa_request_seconds_count") == 4
        assert sample(client, "fastloaa_recording_seconds_total", model="rooms") == 1.5
        assert sample(client, "fastloaa_batch_windows_sum", model="rooms") == 5
        assert sample(client, "fastloaa_requests_in_progress") == 0
        assert "stars" not in client.get("/metrics").text  # whoever asks must not make up labels


def test_of_what_is_too_long_no_more_is_heard_than_may_be(models: dict[str, Classifier]) -> None:
    """An hour of silence is a small file, and must not keep the model for as long as an hour takes."""
    with TestClient(create_app(models, LIMITS)) as client:
        assert client.post("/predict?model=rooms", content=flac(np.zeros(200 * 16000))).status_code == 413
        assert sample(client, "fastloaa_batch_windows_sum", model="rooms") <= 5 / 0.25


@pytest.mark.parametrize("size", [5000, 200_000, 2_000_000])  # buffered by Python, by Starlette, not at all
@pytest.mark.parametrize("form", [False, True], ids=["body", "form"])
def test_no_room_for_the_file(size: int, form: bool, models: dict[str, Classifier]) -> None:
    sent: dict[str, Any] = {"files": {"file": ("a.wav", bytes(size))}} if form else {"content": bytes(size)}
    with TestClient(create_app(models)) as client:
        with files_of_at_most(1000):
            response = client.post("/predict?model=rooms", **sent)
        assert response.status_code == 507
        assert "the server has no room for the recording" in response.json()["error"]
        assert client.post("/predict?model=rooms", content=FILES["silence"]).status_code == 200


def test_a_model_of_spectrograms_is_not_served(models: dict[str, Classifier], tmp_path: Path) -> None:
    """Told at once, not to each request."""
    model = small_ast(2, front_end="log-mel", backbone_options=SMALL | {"depth": 1})
    to_onnx(model, tmp_path / "stored.onnx", waveform=False)
    with pytest.raises(
        ArgumentError, match=r"stored\.onnx: the model was trained on spectrograms .* cannot read sounds"
    ):
        create_app(models | {"stored": Classifier(tmp_path / "stored.onnx")})


class Counting(Batcher):
    """Knows how many windows waited at once, at most."""

    now = most = 0

    def submit(self, waveform: Any) -> Any:
        answer = super().submit(waveform)
        Counting.now += 1
        Counting.most = max(Counting.most, Counting.now)
        answer.add_done_callback(self.done)
        return answer

    def done(self, _: Any) -> None:
        Counting.now -= 1


def test_of_a_long_recording_few_windows_wait(models: dict[str, Classifier], monkeypatch: pytest.MonkeyPatch) -> None:
    """While the model is busy it is not decoded further: memory does not grow with its length."""
    monkeypatch.setattr("fastloaa.export.serving.model.Batcher", Counting)
    with TestClient(create_app(models, Limits(batch_size=4))) as client:
        sound = flac(noise(100 * 16000))
        answer = client.post("/predict", params={"model": "rooms", "timeline": "1"}, content=sound).json()
    assert len(answer["timeline"]) == 399
    assert 4 <= Counting.most <= 8
    assert Counting.now == 0


def test_a_model_that_fails_is_a_fault_of_the_server(models: dict[str, Classifier]) -> None:
    """Said in one line, and the next request is answered."""
    held = Held(models["animals"])
    held.go.set()
    run, faults = held._run, [RuntimeError("in the library"), RuntimeError("bad allocation: std::bad_alloc")]

    def failing(rows: Any) -> NDArray[np.float32]:
        if faults:
            raise faults.pop(0)
        return run(rows)

    held._run = failing  # type: ignore[assignment]
    app = create_app({"held": held}, LIMITS)  # type: ignore[dict-item]
    with TestClient(app, raise_server_exceptions=False) as client:
        answers = [client.post("/predict", content=FILES["silence"]) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [500, 500, 200]
        assert "its log says more" in answers[0].json()["error"]
        assert "out of memory" in answers[1].json()["error"]
        assert sample(client, "fastloaa_requests_total", model="held", status="500") == 2


def test_what_comes_too_slowly_is_let_go(models: dict[str, Classifier]) -> None:
    """By ASGI itself: Starlette's client would not let the server's clock go on."""
    sent: list[Any] = []

    async def receive() -> Any:
        if sent_first:
            await asyncio.sleep(60)
        sent_first.append(True)
        return {"type": "http.request", "body": FILES["silence"][:100], "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    sent_first: list[bool] = []
    app = create_app(models, Limits(upload_seconds=0.1))
    scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"model=rooms", "headers": []}
    with TestClient(app) as client:
        assert client.portal is not None
        client.portal.call(app, scope, receive, send)
        assert sample(client, "fastloaa_requests_in_progress") == 0
    assert sent[0]["status"] == 408
    assert "did not arrive within 0.1 s" in json.loads(sent[1]["body"])["error"]


def test_whoever_has_gone_holds_no_place(models: dict[str, Classifier]) -> None:
    messages = iter([{"type": "http.request", "body": b"RIFF", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        pass

    app = create_app(models, LIMITS)
    scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"model=rooms", "headers": []}
    with TestClient(app) as client:
        assert client.portal is not None
        client.portal.call(app, scope, receive, send)
        assert sample(client, "fastloaa_requests_in_progress") == 0
        assert sample(client, "fastloaa_requests_total", status="400") == 1


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


@pytest.mark.parametrize(
    "options",
    [{"max_bytes": 0}, {"batch_size": 0}, {"max_seconds": 0}, {"max_delay": -1}, {"max_delay": float("nan")}],
)
def test_limits_that_allow_nothing(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(options))):
        Limits(**options)


def test_no_model_is_no_server() -> None:
    with pytest.raises(ArgumentError, match="at least one model"):
        create_app({})


def test_sounds_of_these_tests_are_sounds() -> None:
    """What is meant to be read is: a test of refusals proves nothing with files that are broken otherwise."""
    for content in FILES.values():
        samples, _ = soundfile.read(io.BytesIO(content))
        assert np.isfinite(samples).all()
