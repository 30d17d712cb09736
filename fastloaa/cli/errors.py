"""Errors a user can do something about, in one line."""

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from fastloaa.errors import FastloaaError


class OneLineErrors(TyperGroup):
    """A group of commands that ends with `error: ...` on stderr and exit code 2 at one of fastloaa's own errors or the
    operating system's. Any other is a bug and shows its traceback; `--debug` shows all of them.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # the reader has left, as `| head` does: click ends quietly
        except Exception as error:
            is_refusal = isinstance(error, FastloaaError | OSError) or type(error).__module__.startswith("fastloaa.")
            if ctx.params["debug"] or not is_refusal:
                raise
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            raise typer.Exit(2) from error
