"""Another process that holds a lock."""

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path

from fastloaa.files.locks import locked

PROCESSES = multiprocessing.get_context("fork")  # a second process without a second import of torch


def hold(lock: Path, ready: Connection) -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)  # whatever the tests were started with: nohup ignores some
    with locked("it", lock):
        ready.send(True)
        ready.recv()


@contextmanager
def holder(lock: Path) -> Iterator[int]:
    """Another process that holds a lock; its number."""
    here, there = PROCESSES.Pipe()
    process = PROCESSES.Process(target=hold, args=(lock, there))
    process.start()
    assert here.poll(60)
    assert process.pid is not None
    try:
        yield process.pid
    finally:
        with suppress(OSError):
            here.send(True)
        process.join()
