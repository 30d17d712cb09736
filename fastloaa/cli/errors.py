"""Errors a user can do something about, in one line."""

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from fastloaa.errors import user_line


class OneLineErrors(TyperGroup):
    """A group of commands that ends with `error: ...` on stderr and exit code 2 at errors that a user can do something
    about, see `user_line`. Any other is a bug and shows its traceback; `--debug` shows all of them.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # the reader has left, as `| head` does: click ends quietly
        except Exception as error:
            line = user_line(error)
            if line is None and type(error).__module__.startswith("fastloaa."):
                line = str(error)
            if ctx.params["debug"] or line is None:
                raise
            print(f"error: {line}", file=sys.stderr)
            raise typer.Exit(2) from error
