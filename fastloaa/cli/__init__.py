"""The command line, a file per command. Commands import what is heavy when they run, so that `--help` need not."""

from fastloaa.extras import needs

needs("rich", "typer")

import io
import sys
from typing import Annotated

import typer

from fastloaa.cli import attention, doctor, download, evaluate, export, merge, predict, recipes, serve, sweep, train
from fastloaa.cli.errors import OneLineErrors
from fastloaa.cli.notes import one_line_notes

app = typer.Typer(
    cls=OneLineErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from fastloaa import __version__

        print(f"fastloaa {__version__}")
        raise typer.Exit


@app.callback()
def _fastloaa(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it and stop.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of every error.")] = False,
) -> None:
    """Adapt a vision transformer to sound with Look-Aside Adapters (LoAA), from training to serving.

    Example: fastloaa train --data sounds --out runs/sounds --weights timm
    then fastloaa export runs/sounds sounds.onnx
    and fastloaa predict sounds.onnx new.wav
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names that its encoding does not have end no command
            stream.reconfigure(errors="backslashreplace")


for command in (
    download.download,
    recipes.recipes,
    train.train,
    sweep.sweep,
    evaluate.evaluate,
    merge.merge,
    export.export,
    predict.predict,
    serve.serve,
    attention.attention,
    doctor.doctor,
):
    app.command()(command)


def main() -> None:
    """Entry point of `fastloaa`."""
    one_line_notes()
    app()
