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


class OneLineErrors(TyperGroup):
    """A group of commands that ends with `error: ...` on stderr and exit code 2 at errors that a user can do something
    about, see `user_line`. Any other is a bug and shows its traceback; `--debug` shows all of them.

    Ctrl-C, SIGTERM and SIGHUP are KeyboardInterrupts, so that half-written files go and locks are free; the exit code
    is the shell's for them, 128 + the signal's number.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            with _interrupting():
                return super().invoke(ctx)
        except BrokenPipeError:
            raise  # the reader has left, as `| head` does: click ends quietly
        except KeyboardInterrupt as stop:
            raise typer.Exit(128 + (stop.number if isinstance(stop, _Stop) else signal.SIGINT)) from None
        except Exception as error:
            line = user_line(error)
            if ctx.params["debug"] or line is None:
                raise
            print(f"error: {line}", file=sys.stderr)
            raise typer.Exit(2) from error


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
