"""What is raised on purpose: one base class, so that a caller can tell a refusal from a bug."""

from fastloaa.text import encodable


class FastloaaError(Exception):
    """Something that the caller can do something about; the message is one line that says what.

    All errors that the library raises on purpose are of this class, and of one of Python's besides (ValueError,
    TypeError, RuntimeError, OSError), so that code that knows nothing of fastloaa catches them by those.
    """

    def __str__(self) -> str:
        return encodable(super().__str__())  # messages name files, whose names may be of any bytes


class ArgumentError(FastloaaError, ValueError):
    """An argument out of range, of the wrong shape, or that does not go with another one."""


class ArgumentTypeError(FastloaaError, TypeError):
    """An argument of another kind than expected."""
