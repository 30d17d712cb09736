"""What repeated calls need not work out again, by what it depends on; bounded, and forgotten where settings change."""

from collections.abc import Hashable
from threading import Lock
from typing import Any

LIMIT = 512  # a training run has a handful of shapes; what varies without end must not fill memory
_every: list["Remembered"] = []


class Remembered:
    """A dictionary that drops its oldest entry when it is full. Threads may share it."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self._entries: dict[Hashable, Any] = {}
        self._lock = Lock()
        _every.append(self)

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> Any | None:
        return self._entries.get(key)

    def keep(self, key: Hashable, value: Any) -> None:
        with self._lock:
            while len(self._entries) >= self.limit:
                del self._entries[next(iter(self._entries))]
            self._entries[key] = value

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()


def forget() -> None:
    """Everything, everywhere: after launch settings or what runs where have changed."""
    for each in _every:
        each.clear()
