"""What is raised on purpose: one base class, so that a caller can tell a refusal from a bug."""

import re

from fastloaa.text import encodable


class FastloaaError(Exception):
    """Something that the caller can do something about; the message is one line that says what.

    All errors that the library raises on purpose are of this class, and of one of Python's besides (ValueError,
    TypeError, RuntimeError, OSError), so that code that knows nothing of fastloaa catches them by those.

    Examples:
        >>> from fastloaa import FastloaaError, LoAA
        >>> try:
        ...     LoAA(16, 4, freq_bins=2, dropout=1.5)
        ... except FastloaaError as error:  # a ValueError as well
        ...     print(error)
        dropout is a probability in [0, 1), got 1.5
    """

    def __str__(self) -> str:
        return encodable(super().__str__())  # messages name files, whose names may be of any bytes


class ArgumentError(FastloaaError, ValueError):
    """An argument out of range, of the wrong shape, or that does not go with another one."""


class ArgumentTypeError(FastloaaError, TypeError):
    """An argument of another kind than expected."""


def user_line(error: BaseException) -> str | None:
    """The line that tells a user what to do about an error; None for a bug, whose traceback should be seen.

    Besides the library's own errors and the system's, those of other libraries that mean memory.
    """
    text = encodable(" ".join(_from_worker(str(error)).split()))  # the system's own name files too
    if isinstance(error, FastloaaError | OSError):
        return text
    is_runtimes = isinstance(error, RuntimeError) or type(error).__module__.startswith("onnxruntime.")
    if isinstance(error, MemoryError) or (is_runtimes and _MEMORY.search(text)):
        return f"out of memory: {text[:200] or 'no more'}; a smaller batch size takes less, so do shorter clips"
    if isinstance(error, RuntimeError) and _WORKER_ENDED.search(text):
        return f"{text[:200]}; the system may be out of memory: set fewer workers, workers=0 uses none"
    return None


# PyTorch raises RuntimeErrors for it, onnxruntime exceptions of its own with no common base.
_MEMORY = re.compile(r"out of memory|can(?:not|'t) allocate memory|failed to allocate memory|bad_alloc|bad alloc", re.I)
_WORKER_ENDED = re.compile(r"DataLoader worker .*(?:killed by signal|exited unexpectedly)|</torch_\d+")
_IN_WORKER = re.compile(r"Caught \S+ in DataLoader worker process")


def _from_worker(text: str) -> str:
    """PyTorch puts the traceback of a worker process into the message; its last line is the error's own."""
    if not _IN_WORKER.match(text):
        return text
    last = text.rstrip().splitlines()[-1]
    return re.sub(r"^[\w.]+: ", "", last)
