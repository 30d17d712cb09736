"""The application: `POST /predict`, and what is asked about a server."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastloaa import __version__
from fastloaa.errors import ArgumentError, user_line
from fastloaa.export.classifier import Classifier
from fastloaa.export.serving.limits import Limits, Refusal
from fastloaa.export.serving.metrics import Metrics
from fastloaa.export.serving.model import Question, ServedModel
from fastloaa.export.serving.uploads import received
from fastloaa.text import printable

Answer = TypeVar("Answer")
_PREDICT = "/predict"
_SOUND = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "schema": {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}, "required": ["file"]}
}
_BODY = {"requestBody": {"required": True, "content": {"audio/*": _SOUND, "multipart/form-data": _FORM}}}


def create_app(models: Mapping[str, Classifier], limits: Limits | None = None) -> FastAPI:
    """An ASGI application that answers for recordings.

    - `POST /predict`: a sound file, as the body or in a form; the query is a `Question`. JSON: `model`, `top` (labels
      with probabilities, best first), `seconds`, `heard`, and `timeline` where it is asked for.
    - `GET /models`: labels, window and more of each. `GET /health`. `GET /metrics`, in Prometheus' form.

    What cannot be answered is `{"error": "one line"}`, with a status of 400 to 499 where another request could be, and
    503 where the same one may be later.

    Args:
        models: by the names that requests call them.
        limits: None: `Limits()`.

    Raises:
        ArgumentError: no models, or one that cannot read sounds.
    """
    if not models:
        raise ArgumentError("expected at least one model, got none")
    for name, classifier in models.items():
        if classifier.hearing.mel_bins is not None:
            raise ArgumentError(
                f"{name}: the model was trained on spectrograms from files and cannot read sounds; `fastloaa predict` "
                "answers for such files"
            )
    limits = limits or Limits()
    metrics = Metrics()
    served: dict[str, ServedModel] = {}

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        with ThreadPoolExecutor(limits.workers, "decode") as decoders:
            for name, classifier in models.items():
                served[name] = ServedModel(name, classifier, limits, decoders, metrics)
            yield
            for model in served.values():
                await asyncio.to_thread(model.batcher.close)

    # The pages of documentation that FastAPI offers load scripts from elsewhere; /openapi.json describes the same.
    app = FastAPI(title="fastloaa", version=__version__, lifespan=running, docs_url=None, redoc_url=None)
    app.add_middleware(Gate, metrics=metrics, most=limits.max_requests)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(RequestValidationError, _misasked)
    app.add_exception_handler(HTTPException, _not_there)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _failed)

    def chosen(name: str | None) -> ServedModel:
        there = ", ".join(map(repr, served))
        if name is None and len(served) > 1:
            raise Refusal(422, f"which model? There are {there}; add ?model=NAME")
        if name is not None and name not in served:
            raise Refusal(404, f"no model {printable(name)[:100]!r}; there is {there}")
        return served[next(iter(served)) if name is None else name]

    @app.post(_PREDICT, openapi_extra=_BODY)
    async def predict(request: Request, question: Annotated[Question, Query()]) -> JSONResponse:
        """What is heard in a sound file."""
        model = chosen(question.model)
        request.state.model = model.name
        async with received(request, limits) as (path, name):
            answer = await _while_there(request, model.hear(path, name, question))
        metrics.heard.labels(model.name).inc(answer["seconds"])
        return JSONResponse(answer)

    @app.get("/models")
    async def about() -> dict[str, Any]:
        """What there is to ask."""
        return {name: model.about() for name, model in served.items()}

    @app.get("/health")
    async def health() -> JSONResponse:
        """Whether requests are answered."""
        well = all(model.batcher.alive for model in served.values())
        return JSONResponse({"status": "ok" if well else "stopped", "models": list(served)}, 200 if well else 503)

    @app.get("/metrics")
    async def counted() -> Response:
        """In Prometheus' form."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


class Gate:
    """Counts and times what is asked of `/predict`, and refuses what would be too much at once.

    Args:
        app: what is behind it.
        metrics: of the server.
        most: requests in progress.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, most: int) -> None:
        self._app, self._metrics, self._most = app, metrics, most
        self._in_progress = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As of ASGI."""
        if scope["type"] != "http" or scope["path"] != _PREDICT:
            await self._app(scope, receive, send)
            return
        since, started = perf_counter(), False

        async def watched(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                self._count(scope, message["status"], perf_counter() - since)
            await send(message)

        if self._in_progress >= self._most:
            await _busy(self._most)(scope, receive, watched)
            return
        self._in_progress += 1
        try:
            with self._metrics.in_progress.track_inprogress():
                await self._app(scope, receive, watched)
        except Exception:  # which becomes an answer further out
            if not started:
                self._count(scope, 500, perf_counter() - since)
            raise
        finally:
            self._in_progress -= 1

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        """Before the answer is sent, so that whoever has it finds it counted."""
        model = scope.get("state", {}).get("model", "")
        self._metrics.requests.labels(model, str(status)).inc()
        self._metrics.seconds.labels(model).observe(seconds)


def _line(status: int, line: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": line}, status, headers)


def _busy(most: int) -> JSONResponse:
    return _line(503, f"{most} requests are in progress, the most here; try again later", {"Retry-After": "1"})


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _line(error.status, str(error))


async def _misasked(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    lines = [
        f"{each['loc'][-1]}: {each['msg'][:1].lower()}{each['msg'][1:]}, got {str(each['input'])[:100]!r}"
        for each in error.errors()
    ]
    known = ", ".join(Question.model_fields)
    return _line(422, f"{printable('; '.join(lines))}; the query may have {known}")


async def _not_there(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    there = f"POST {_PREDICT}, GET /models, GET /health and GET /metrics"
    asked = printable(f"{request.method} {request.url.path}"[:100])
    return _line(error.status_code, f"{asked}: {error.detail}; there are {there}", error.headers)


async def _while_there(request: Request, answering: Coroutine[Any, Any, Answer]) -> Answer:
    """An answer; it is worked on no longer than somebody waits for it.

    Raises:
        ClientDisconnect: whoever asked has gone.
    """

    async def leave() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    answer, left = asyncio.create_task(answering), asyncio.create_task(leave())
    try:
        await asyncio.wait((answer, left), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientDisconnect
        return answer.result()
    finally:
        answer.cancel()
        left.cancel()
        await asyncio.gather(answer, left, return_exceptions=True)  # before the recording's file goes


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=400)  # to nobody, for the metrics


async def _failed(_: Request, error: Exception) -> Response:
    return _line(500, user_line(error) or "a fault of the server's; its log says more")
