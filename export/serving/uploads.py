"""The sound that a request brings: its body as it is, or a file in a form."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path, PureWindowsPath
from tempfile import NamedTemporaryFile
from typing import IO, Any

import anyio
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive

from fastloaa.export.serving.limits import Limits, Refusal
from fastloaa.files import WriteError, writing_temporary
from fastloaa.text import printable

_HOW = "send the bytes of a sound file (curl --data-binary @clip.wav), or one file in a form (curl -F file=@clip.wav)"
_FIELDS = 16  # of a form, besides the file
_NAME = 100  # characters of a file's name that are repeated in messages


@asynccontextmanager
async def received(request: Request, limits: Limits) -> AsyncIterator[tuple[Path, str]]:
    """Receive a sound into a temporary file, which is gone afterwards.

    Yields:
        Its path, and what messages call it.

    Raises:
        Refusal: nothing comes, too much, too slowly, a form without a file, or there is no room for it.
        ClientDisconnect: whoever asked has gone.
    """
    try:
        with writing_temporary():
            file: Any = NamedTemporaryFile(prefix="fastloaa-")  # noqa: SIM115 (closed below)
        try:
            try:
                with anyio.fail_after(limits.upload_seconds):
                    name = await _receive(_limited(request, limits.max_bytes), file)
            except TimeoutError as error:
                raise Refusal(
                    408, f"the recording did not arrive within {limits.upload_seconds:g} s; send a smaller one, as flac"
                ) from error
            if not file.tell():
                raise Refusal(400, f"{name} is empty, 0 bytes; {_HOW}")
            with writing_temporary():
                file.flush()
            yield Path(file.name), name
        finally:
            with suppress(OSError):  # what did not fit before does not now; the file goes all the same
                file.close()
    except WriteError as error:
        raise Refusal(507, f"the server has no room for the recording ({error}); try again later") from error


async def _receive(request: Request, file: IO[bytes]) -> str:
    """Write what comes, and return what to call it."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        async for part in request.stream():  # of any type: curl says that the bytes are a form
            with writing_temporary():
                file.write(part)
        return "the recording"
    with writing_temporary():
        try:
            form = await request.form(max_files=1, max_fields=_FIELDS)
        except HTTPException as error:
            raise Refusal(400, f"the form cannot be read ({str(error.detail).rstrip('.')}); {_HOW}") from error
        try:
            upload = next((value for value in form.values() if isinstance(value, UploadFile)), None)
            if upload is None:
                raise Refusal(400, f"the form holds no file; {_HOW}")
            await asyncio.to_thread(shutil.copyfileobj, upload.file, file)
        finally:
            await form.close()
    name = PureWindowsPath(upload.filename or "").name  # which knows both kinds of slashes
    return printable(name)[-_NAME:] or "the recording"


def _limited(request: Request, most: int) -> Request:
    """The same request, which is refused as soon as it is known to have more than `most` bytes."""

    def check(count: int) -> None:
        if count > most:
            raise Refusal(413, f"the request has more than {most} bytes, the most here; cut it, or send it as flac")

    taken = 0

    def counting(receive: Receive) -> Receive:
        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            check(taken)
            return message

        return counted

    declared = request.headers.get("content-length", "")
    check(int(declared) if declared.isdecimal() else 0)
    return Request(request.scope, counting(request.receive))
