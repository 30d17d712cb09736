"""`fastloaa serve`: exported models that answer over HTTP."""

import ipaddress
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from fastloaa.errors import ArgumentError

_GRACE = 30  # seconds for requests in progress when the server is told to end


def serve(
    models: Annotated[
        list[str],
        typer.Argument(help="ONNX files that `fastloaa export` wrote, as FILE or NAME=FILE."),
    ],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    batch_size: Annotated[int, typer.Option(min=1, help="Most windows, of all requests, in one run of a model.")] = 8,
    max_delay: Annotated[
        float, typer.Option(min=0, help="Milliseconds that a window waits for others to share its run.")
    ] = 5.0,
    max_seconds: Annotated[float, typer.Option(help="Longest recording.")] = 600.0,
    max_megabytes: Annotated[int, typer.Option(min=1, help="Largest request, in MiB.")] = 64,
    max_requests: Annotated[int, typer.Option(min=1, help="Most in progress; others are told to come later.")] = 64,
    upload_seconds: Annotated[float, typer.Option(help="Until a request must have arrived.")] = 60.0,
    workers: Annotated[int, typer.Option(min=1, help="Threads that decode recordings.")] = 2,
) -> None:
    """Answer for sound files by HTTP: POST /predict, with GET /models, /health and /metrics beside it.

    Windows of requests that come together share a run of the model. Ctrl-C and SIGTERM end it when what was asked is
    answered.

    Example: fastloaa serve sounds.onnx birds=runs/birds/model.onnx
    then curl --data-binary @clip.wav 'http://127.0.0.1:8000/predict?model=sounds&top=3'
    or curl -F file=@meeting.flac 'http://127.0.0.1:8000/predict?model=birds&timeline=true'
    """
    found = named_models(models)
    from fastloaa.audio import AudioWarning
    from fastloaa.export.classifier import Classifier
    from fastloaa.extras import needs

    needs("fastapi", "multipart", "prometheus_client", "uvicorn")
    import uvicorn

    from fastloaa.export.serving.app import create_app
    from fastloaa.export.serving.limits import Limits

    limits = Limits(
        max_bytes=max_megabytes << 20,
        max_seconds=max_seconds,
        max_requests=max_requests,
        batch_size=batch_size,
        max_delay=max_delay / 1e3,
        upload_seconds=upload_seconds,
        workers=workers,
    )
    app = create_app({name: Classifier(path) for name, path in found.items()}, limits)
    warnings.simplefilter("ignore", AudioWarning)  # they name temporary files
    with listening(host, port) as listener:
        address = listener.getsockname()
        if not ipaddress.ip_address(address[0]).is_loopback:
            print(f"note: whoever reaches {address[0]} may ask; there is no password", file=sys.stderr)
        shown = f"[{address[0]}]" if ":" in address[0] else address[0]
        print(f"http://{shown}:{address[1]} answers for {', '.join(found)}; Ctrl-C ends it", flush=True)
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=_GRACE)
        server = uvicorn.Server(config)
        with hanging_up(server.handle_exit), suppress(KeyboardInterrupt):
            server.run([listener])  # which raises the signal again when all is answered: it did as it was told


@contextmanager
def hanging_up(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """A closed terminal ends the server as SIGTERM does, unless that is ignored; uvicorn does not see to it."""
    before = signal.getsignal(signal.SIGHUP)
    heard = before is not signal.SIG_IGN and threading.current_thread() is threading.main_thread()
    if heard:
        signal.signal(signal.SIGHUP, handler)
    try:
        yield
    finally:
        if heard:
            signal.signal(signal.SIGHUP, before)


def named_models(arguments: Sequence[str]) -> dict[str, Path]:
    """Models by name: `NAME=FILE`, or a file, whose name without its suffix it is then.

    Raises:
        ArgumentError: two of one name, or none.
    """
    found: dict[str, Path] = {}
    for argument in arguments:
        name, given, file = argument.partition("=")
        if not given or Path(argument).exists():
            name, file = Path(argument).stem, argument
        if not name or not file:
            raise ArgumentError(f"{argument!r}: expected an ONNX file, or NAME=FILE")
        if name in found:
            raise ArgumentError(f"{found[name]} and {file} are both called {name!r}; name one, NAME={file}")
        found[name] = Path(file)
    return found


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ArgumentError: the address is not this machine's, or another program has it.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        raise ArgumentError(
            f"cannot listen on {host}, port {port} ({error.strerror or error}); choose others by --host and --port"
        ) from error
