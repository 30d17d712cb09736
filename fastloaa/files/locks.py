"""What is written over minutes or days belongs to one process at a time."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

from fastloaa.errors import FastloaaError
from fastloaa.files.storage import writing


class LockedError(FastloaaError, RuntimeError):
    """Another process is writing there."""


@contextmanager
def locked(path: str | Path, lock: Path) -> Iterator[None]:
    """While the block runs, no other process gets into one with the same lock.

    The system frees it when the process ends, however that happens; forked workers do not hold it.

    Args:
        path: what it is about, for the message.
        lock: the lock file, which says who holds it and is gone afterwards. Its folder is made.

    Raises:
        LockedError: another process holds it; the message says which, where, and since when.
        WriteError: the lock file cannot be made.
    """
    held = FileLock(lock)
    with writing(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            held.acquire(blocking=False)
        except Timeout:
            raise LockedError(
                f"{path}: in use by {_holder(lock)}; wait until it has finished, or give another place"
            ) from None
    # A file system without locks gets filelock's next best, which keeps its own notes in the file and deletes it.
    has_notes = isinstance(held, SoftFileLock)
    try:
        if not has_notes:
            with writing(lock):
                lock.write_text(json.dumps(_self()))
        yield
    finally:
        if not has_notes:
            with suppress(OSError):
                lock.unlink()  # while it is held: whoever has opened it by now sees that it is another file's lock
        held.release()


def _self() -> dict[str, object]:
    since = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": since}


def _holder(lock: Path) -> str:
    """The process that holds the lock, in words."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(lock.read_text())
        return f"process {found['pid']} on {found['host']} since {found['since']}"
    return "another process"
