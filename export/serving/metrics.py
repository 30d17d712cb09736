"""What a server counts, in Prometheus' form."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_WINDOWS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Of one application. The label `model` is empty for requests that name none which is there.

    Attributes:
        registry: all of them, and the process's own (memory, CPU seconds, open files).
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "fastloaa_requests", "Answered requests, by HTTP status.", ["model", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "fastloaa_request_seconds",
            "From a request's first byte to its answer.",
            ["model"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.in_progress = Gauge("fastloaa_requests_in_progress", "Unanswered requests.", registry=self.registry)
        self.heard = Counter(
            "fastloaa_recording_seconds", "Length of the answered recordings.", ["model"], registry=self.registry
        )
        self.batches = Histogram(
            "fastloaa_batch_windows",
            "Windows in a run of the model.",
            ["model"],
            buckets=_WINDOWS,
            registry=self.registry,
        )
        self.runs = Histogram(
            "fastloaa_run_seconds", "Of a run of the model.", ["model"], buckets=_SECONDS, registry=self.registry
        )
