"""The server when much is asked of it, or something fails: what is in progress, how much is let in, what is counted."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastloaa.errors import ArgumentError
from fastloaa.export import Classifier
from helpers.full_disk import files_of_at_most
from helpers.serving import FILES, LIMITS, check, flac
from helpers.sounds import noise

pytest.importorskip("fastapi", reason="needs pip install 'fastloaa[serve]'")
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from fastloaa.export.serving.app import create_app
from fastloaa.export.serving.batching import Batcher
from fastloaa.export.serving.limits import Limits

pytestmark = pytest.mark.usefixtures("nothing_stays")


class Held:
    """A classifier that answers when it is let go, and records how many windows it was given at a time."""

    def __init__(self, classifier: Classifier) -> None:
        self.metadata, self.named = classifier.metadata, classifier.named
        self.hearing, self._run = classifier.hearing, classifier.probabilities
        self.entered, self.go, self.sizes = threading.Event(), threading.Event(), list[int]()

    def probabilities(self, rows: Any) -> NDArray[np.float32]:
        self.sizes.append(len(rows))
        self.entered.set()
        assert self.go.wait(60)
        return self._run(rows)


def test_requests_share_a_run_and_what_is_too_much_is_told_to_come_later(
    served: dict[str, Classifier], tmp_path: Path
) -> None:
    held = Held(served["animals"])
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
            check(answer.result(60).json(), served["animals"], sound, tmp_path)
    assert held.sizes == [5]


def sample(client: TestClient, name: str, **labels: str) -> float:
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(response.text)
    found = [each for family in families for each in family.samples if each.name == name]
    return sum(each.value for each in found if labels.items() <= each.labels.items())


def test_metrics(served: dict[str, Classifier]) -> None:
    with TestClient(create_app(served, LIMITS)) as client:
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


def test_of_what_is_too_long_no_more_is_heard_than_may_be(served: dict[str, Classifier]) -> None:
    """An hour of silence is a small file, and must not keep the model for as long as an hour takes."""
    with TestClient(create_app(served, LIMITS)) as client:
        assert client.post("/predict?model=rooms", content=flac(np.zeros(200 * 16000))).status_code == 413
        assert sample(client, "fastloaa_batch_windows_sum", model="rooms") <= 5 / 0.25


@pytest.mark.parametrize("size", [5000, 200_000, 2_000_000])  # buffered by Python, by Starlette, not at all
@pytest.mark.parametrize("form", [False, True], ids=["body", "form"])
def test_no_room_for_the_file(size: int, form: bool, served: dict[str, Classifier]) -> None:
    sent: dict[str, Any] = {"files": {"file": ("a.wav", bytes(size))}} if form else {"content": bytes(size)}
    with TestClient(create_app(served)) as client:
        with files_of_at_most(1000):
            response = client.post("/predict?model=rooms", **sent)
        assert response.status_code == 507
        assert "the server has no room for the recording" in response.json()["error"]
        assert client.post("/predict?model=rooms", content=FILES["silence"]).status_code == 200


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


def test_of_a_long_recording_few_windows_wait(served: dict[str, Classifier], monkeypatch: pytest.MonkeyPatch) -> None:
    """While the model is busy it is not decoded further: memory does not grow with its length."""
    monkeypatch.setattr("fastloaa.export.serving.model.Batcher", Counting)
    with TestClient(create_app(served, Limits(batch_size=4))) as client:
        sound = flac(noise(100 * 16000))
        answer = client.post("/predict", params={"model": "rooms", "timeline": "1"}, content=sound).json()
    assert len(answer["timeline"]) == 399
    assert 4 <= Counting.most <= 8
    assert Counting.now == 0


def test_a_model_that_fails_is_a_fault_of_the_server(served: dict[str, Classifier]) -> None:
    """Said in one line, and the next request is answered."""
    held = Held(served["animals"])
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


def test_what_comes_too_slowly_is_let_go(served: dict[str, Classifier]) -> None:
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
    app = create_app(served, Limits(upload_seconds=0.1))
    scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"model=rooms", "headers": []}
    with TestClient(app) as client:
        assert client.portal is not None
        client.portal.call(app, scope, receive, send)
        assert sample(client, "fastloaa_requests_in_progress") == 0
    assert sent[0]["status"] == 408
    assert "did not arrive within 0.1 s" in json.loads(sent[1]["body"])["error"]


def test_whoever_has_gone_holds_no_place(served: dict[str, Classifier]) -> None:
    messages = iter([{"type": "http.request", "body": b"RIFF", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        pass

    app = create_app(served, LIMITS)
    scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"model=rooms", "headers": []}
    with TestClient(app) as client:
        assert client.portal is not None
        client.portal.call(app, scope, receive, send)
        assert sample(client, "fastloaa_requests_in_progress") == 0
        assert sample(client, "fastloaa_requests_total", status="400") == 1


def test_for_whoever_has_gone_nothing_more_is_heard(served: dict[str, Classifier]) -> None:
    """Of a recording of 399 windows: the run that was under way is the last."""
    held, came = Held(served["rooms"]), False

    async def receive() -> Any:
        nonlocal came
        if came:
            await asyncio.to_thread(held.entered.wait, 60)
            return {"type": "http.disconnect"}
        came = True
        return {"type": "http.request", "body": flac(noise(100 * 16000)), "more_body": False}

    async def send(message: Any) -> None:
        pass

    app = create_app({"rooms": held}, Limits(batch_size=4))  # type: ignore[dict-item]
    scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": []}
    with TestClient(app) as client:
        assert client.portal is not None
        client.portal.call(app, scope, receive, send)
        assert sample(client, "fastloaa_requests_in_progress") == 0
        assert sample(client, "fastloaa_requests_total", model="rooms", status="400") == 1
        held.go.set()
    assert len(held.sizes) == 1


@pytest.mark.parametrize(
    "options",
    [{"max_bytes": 0}, {"batch_size": 0}, {"max_seconds": 0}, {"max_delay": -1}, {"max_delay": float("nan")}],
)
def test_limits_that_allow_nothing(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(options))):
        Limits(**options)
