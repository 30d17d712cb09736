"""How commands end other than well: errors a user can do something about, in one line, and signals."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from fastloaa.errors import user_line
from fastloaa.text import encodable

# typer has a click of its own from 0.26 on and no public name for this; the usual import is of another class.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


class OneLineErrors(TyperGroup):
    """A group of commands that ends with `error: ...` on stderr and exit code 2 at errors that a user can do something
    about, see `user_line`, and at options that it does not take. Any other is a bug and shows its traceback; `--debug`
    shows all of them, but for those of options.

    Ctrl-C, SIGTERM and SIGHUP are KeyboardInterrupts, so that half-written files go and locks are free; the exit code
    is the shell's for them, 128 + the signal's number.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        is_bare = not args  # which shows the help
        try:
            return super().parse_args(ctx, args)
        except _UsageError as error:
            if is_bare:
                raise
            _end(_usage_line(error), error)

    def invoke(self, ctx: Any) -> Any:
        try:
            with _interrupting():
                return super().invoke(ctx)
        except BrokenPipeError:
            raise  # the reader has left, as `| head` does: click ends quietly
        except KeyboardInterrupt as stop:
            raise typer.Exit(128 + (stop.number if isinstance(stop, _Stop) else signal.SIGINT)) from None
        except _UsageError as error:
            _end(_usage_line(error), error)
        except EOFError as error:  # typer would take it for the end of what somebody types
            raise RuntimeError(f"data ended early: {error}") from error
        except Exception as error:
            line = user_line(error)
            if ctx.params["debug"] or line is None:
                raise
            _end(line, error)


def _end(line: str, error: Exception) -> NoReturn:
    print(f"error: {line}", file=sys.stderr)
    raise typer.Exit(2) from error


def _usage_line(error: Any) -> str:
    """What is wrong with the words of a command, and where to read which it takes."""
    text = encodable(" ".join(error.format_message().split())).rstrip(".")
    return f"{text}; {error.ctx.command_path} --help shows what it takes" if error.ctx else text


class _Stop(KeyboardInterrupt):
    """The process is asked to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def _interrupting() -> Iterator[None]:
    """Raise where Python would end at once and clean nothing up; what is ignored (nohup) or handled stays so."""

    def stop(number: int, _frame: FrameType | None) -> NoReturn:
        raise _Stop(number)

    is_main = threading.current_thread() is threading.main_thread()  # others may not set handlers
    ours = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours if is_main else ():
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in ours if is_main else ():
            signal.signal(number, signal.SIG_DFL)
