"""A model of a server: from a sound file to an answer, while others are answered too."""

import asyncio
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from fastloaa.export.classifier import Classifier
from fastloaa.export.listening import End, Part, Piece, parts
from fastloaa.export.serving.batching import Batcher, Row
from fastloaa.export.serving.limits import Limits, Refusal
from fastloaa.export.serving.metrics import Metrics
from fastloaa.export.windows import Pool, Pooled, hop_samples

_SHORTEST_HOP = 0.1  # windows


class Question(BaseModel):
    """What is asked of a recording, in a request's query."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="Which model; may be left out where there is one.")
    top: int | None = Field(None, ge=1, description="Most classes to name.")
    threshold: float | None = Field(None, ge=0, le=1, allow_inf_nan=False, description="Least probability of a class.")
    hop: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Seconds from window to window; half a window if not given."
    )
    pool: Pool = Field("mean", description="One answer of many windows.")
    timeline: bool = Field(False, description="Say what is heard when, too.")


class ServedModel:
    """A classifier whose runs are shared by the requests of a server.

    Args:
        name: what requests call it.
        classifier: the model.
        limits: of the server.
        decoders: threads that decode recordings.
        metrics: of the server.
    """

    def __init__(self, name: str, classifier: Classifier, limits: Limits, decoders: Executor, metrics: Metrics) -> None:
        self.name, self._classifier, self._limits, self._decoders = name, classifier, limits, decoders
        self._hearing, self._rate = classifier.hearing, classifier.hearing.rate
        batches, runs = metrics.batches.labels(name), metrics.runs.labels(name)

        def told(windows: int, seconds: float) -> None:
            batches.observe(windows)
            runs.observe(seconds)

        self.batcher = Batcher(classifier.probabilities, limits.batch_size, limits.max_delay, told)

    def about(self) -> dict[str, Any]:
        """What whoever asks should know of it, as JSON."""
        metadata = self._classifier.metadata
        return {
            "labels": metadata.labels,
            "multi_label": metadata.multi_label,
            "sample_rate": metadata.sample_rate,
            "window": metadata.window,
            "precision": metadata.precision,
        }

    async def hear(self, path: Path, name: str, question: Question) -> dict[str, Any]:
        """The answer for a sound file, as JSON: what `Classifier.classify` says, and with `timeline` its windows.

        Memory does not grow with the recording's length but by the timeline.

        Args:
            path: of the file.
            name: what messages call it.

        Raises:
            Refusal: it cannot be read, is too short or too long, or makes the model answer NaN; hops that are too short
                or long.
        """
        opened = parts(path, self._hearing, self._hop(question.hop))
        pooled, timeline = Pooled(question.pool), []
        waiting: deque[tuple[Piece, asyncio.Future[Row]]] = deque()
        end: End | None = None
        try:
            while end is None:
                for part in await self._decoded(opened):
                    if isinstance(part, End):
                        end = self._checked(part, path, name)
                    else:
                        self._check_length((part.start + len(part.waveform)) / self._rate, name)
                        waiting.append((part, asyncio.wrap_future(self.batcher.submit(part.waveform))))
                while len(waiting) > (0 if end else self._limits.batch_size):
                    piece, answer = waiting.popleft()
                    row = await answer
                    if not np.isfinite(row).all():
                        raise Refusal(422, f"{name}: {self._hearing.not_a_number}")
                    pooled.add(row)
                    if question.timeline:
                        timeline.append(self._window(piece, row, question))
        finally:
            for _, answer in waiting:
                answer.cancel()
            with suppress(ValueError):  # a thread is still at it, after which the file is closed
                opened.close()
        found = pooled.result()
        assert found is not None  # a recording without an error has a window
        answered: dict[str, Any] = {"model": self.name, "top": self._named(found, question)}
        answered |= {"seconds": end.seconds, "heard": end.heard}
        return answered | ({"timeline": timeline} if question.timeline else {})

    async def _decoded(self, opened: Iterator[Part]) -> list[Part]:
        """The next parts of a recording, as many as make a run."""
        count = self._limits.batch_size
        return await asyncio.get_running_loop().run_in_executor(self._decoders, lambda: list(islice(opened, count)))

    def _named(self, row: Row, question: Question) -> list[dict[str, Any]]:
        named = self._classifier.named(row, question.top, question.threshold)
        return [{"label": label, "probability": probability} for label, probability in named]

    def _window(self, piece: Piece, row: Row, question: Question) -> dict[str, Any]:
        start, end = (at / self._rate for at in (piece.start, piece.start + len(piece.waveform)))
        return {"start": start, "end": end, "top": self._named(row, question)}

    def _hop(self, seconds: float | None) -> int:
        """In samples. Shorter ones would make a small file much work, longer ones leave gaps."""
        window = self._hearing.window / self._rate
        if seconds is not None and not _SHORTEST_HOP * window <= seconds <= window:
            raise Refusal(
                422,
                f"hop: from {_SHORTEST_HOP * window:g} to {window:g} s, the window of model {self.name!r}; "
                f"got {seconds:g}",
            )
        return hop_samples(seconds, self._hearing.window, self._rate)

    def _checked(self, end: End, path: Path, name: str) -> End:
        if end.error is not None:
            raise Refusal(422, f"{name}: {end.error.removeprefix(f'{path}: ')}")
        self._check_length(end.seconds, name)
        return end

    def _check_length(self, seconds: float, name: str) -> None:
        most = self._limits.max_seconds
        if seconds > most:
            raise Refusal(413, f"{name}: longer than {most:g} s, the most here; send it in parts")
