"""What a server takes on, and how a request is told that it cannot be answered."""

from dataclasses import dataclass

from fastloaa.errors import ArgumentError, FastloaaError
from fastloaa.inputs import number, whole


class Refusal(FastloaaError):
    """A request that is answered by one line instead of labels.

    Args:
        status: of HTTP.
        line: what was given, what was expected, and what to do.
    """

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """What a server takes on.

    Args:
        max_bytes: of a request's body.
        max_seconds: of a recording.
        max_requests: that are in progress, from their first byte to their answer; more are refused.
        batch_size: most windows in one run of a model.
        max_delay: seconds that a window waits for others to share its run.
        upload_seconds: until a request must have arrived.
        workers: threads that decode recordings.

    Raises:
        ArgumentError: a number that is too small for any request.
    """

    max_bytes: int = 64 << 20
    max_seconds: float = 600.0
    max_requests: int = 64
    batch_size: int = 8
    max_delay: float = 0.005
    upload_seconds: float = 60.0
    workers: int = 2

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_requests", "batch_size", "workers"):
            whole(name, getattr(self, name))
        for name in ("max_seconds", "upload_seconds"):
            if number(name, getattr(self, name)) <= 0:
                raise ArgumentError(f"{name} is above 0; got {getattr(self, name)}")
        if number("max_delay", self.max_delay) < 0:
            raise ArgumentError(f"max_delay is in seconds, at least 0; got {self.max_delay}")
