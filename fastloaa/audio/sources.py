"""Where the bytes of a sound come from: files, standard input and pipes, all of them seekable from here on."""

import io
import os
import select
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from fastloaa.errors import FastloaaError
from fastloaa.files import WriteError, writing_temporary

STANDARD_INPUT = "-"
LONGEST_PIPE = 4 << 30  # bytes; kept in memory up to IN_MEMORY, in a temporary file beyond
IN_MEMORY = 64 << 20
REMEMBERED = 1 << 20  # bytes of a live pipe: its header, and what a decoder goes back
PATIENCE = 5.0  # seconds until a named pipe without a first byte counts as one that nobody writes to
ENDLESS = 1 << 40  # bytes; the length of what has not ended yet, larger than any file that is read

_READ_FORWARDS = {b"RIFF", b"RIFX", b"RF64", b".snd", b"dns.", b"fLaC"}  # others are entered from their end


class Unreadable(FastloaaError):
    """What is wrong with a sound and what to do, in one line that does not name it."""


def open_source(path: Path, only_beginning: bool = False, live: bool = False) -> BinaryIO:
    """Open a file, a pipe or, as `-`, standard input for reading bytes; seekable.

    Args:
        only_beginning: of wav, au and flac from a pipe, bytes are taken when they are asked for, so that endless ones
            can be read; where they end is not known then, and they seem `ENDLESS` bytes long. All others are read to
            their end first.
        live: bytes are taken from a pipe when they are asked for, and soon forgotten, so that it may go on for ever.

    Raises:
        Unreadable: there is no such file or it is none, nothing comes out of the pipe or more than `LONGEST_PIPE`, or
            what comes out of a live one has to be read to its end first.
    """
    if str(path) == STANDARD_INPUT:
        return _seekable(_standard_input(), only_beginning, live)
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            return path.open("rb")
        if stat.S_ISFIFO(mode):
            return _seekable(_open_fifo(path), only_beginning, live)
    except FileNotFoundError as error:
        if path.is_symlink():
            raise Unreadable(f"is a link to {path.readlink()}, which does not exist; correct the link") from error
        raise Unreadable("no such file; check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise Unreadable(f"cannot be opened ({reason}); check the path and its permissions") from error
    raise Unreadable(f"is a {_kind(mode)}, expected a sound file")


def length_of(source: BinaryIO) -> int:
    """Bytes in a source; the position stays."""
    at = source.tell()
    length = source.seek(0, os.SEEK_END)
    source.seek(at)
    return length


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "folder",
        stat.S_IFCHR: "device",
        stat.S_IFBLK: "block device",
        stat.S_IFSOCK: "socket",
    }
    return kinds.get(stat.S_IFMT(mode), "special file")


def _standard_input() -> BinaryIO:
    stream = sys.stdin
    if stream is None or stream.closed:
        raise Unreadable("standard input is closed; pipe a sound into it")
    if stream.isatty():
        raise Unreadable("standard input is a terminal; pipe a sound into it, or name a file")
    return stream.buffer


def _open_fifo(path: Path) -> BinaryIO:
    # Opened in the usual way, a pipe without a writer would block for good.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not select.select([handle], [], [], PATIENCE)[0]:
        os.close(handle)
        raise Unreadable(
            f"is a pipe (FIFO), and nothing came out of it in {PATIENCE:g} s; start what writes to it first"
        )
    os.set_blocking(handle, True)
    return os.fdopen(handle, "rb")


def _seekable(stream: BinaryIO, only_beginning: bool, live: bool) -> BinaryIO:
    pipe = LivePipe(stream) if live else Pipe(stream)
    start = pipe.read(4)
    pipe.seek(0)
    if not (live or only_beginning) or (start and start not in _READ_FORWARDS):
        pipe.read_to_end()
    return pipe


class Pipe(io.BufferedIOBase, BinaryIO):
    """Something that can only be read forwards, made seekable by keeping what was read.

    Args:
        stream: to read from; its bytes are taken as they are needed.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._limit = stream, LONGEST_PIPE
        self._kept: Any = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 (closed in close)
        self._length, self._at, self._ended = 0, 0, False

    def read_to_end(self) -> None:
        """Take all there is.

        Raises:
            Unreadable: that is more than the limit.
        """
        self._take(self._limit + 1)
        if not self._ended:
            raise Unreadable(
                f"more than {self._limit >> 20} MiB came out of the pipe; save it as a file, or read a part of it"
            )

    @property
    def is_full(self) -> bool:
        """Whether reading stopped at the limit."""
        return self._length >= self._limit

    def _take(self, end: int) -> None:
        self._kept.seek(self._length)
        while not self._ended and self._length < end:
            part = self._stream.read(min(end - self._length, 1 << 20))
            self._ended = not part
            try:
                with writing_temporary():
                    self._kept.write(part)
                    self._kept.flush()
            except WriteError as error:
                raise Unreadable(f"came through a pipe, and there is no place to keep it: {error}") from error
            self._length += len(part)

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to `size` bytes, fewer only at the end or the limit; everything if negative."""
        end = self._limit if size is None or size < 0 else min(self._at + size, self._limit)
        self._take(end)
        self._kept.seek(self._at)
        part = self._kept.read(max(end - self._at, 0))
        self._at += len(part)
        return part

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """As of a file that is `ENDLESS` bytes long as long as its end has not been reached."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length if self._ended else ENDLESS}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        with suppress(OSError):  # what did not fit before does not now
            self._kept.close()
        if self._stream is not getattr(sys.stdin, "buffer", None):
            self._stream.close()
        super().close()


class LivePipe(Pipe):
    """A `Pipe` that keeps no more than the last `REMEMBERED` bytes, and so may go on for ever."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream)
        self._limit, self._recent = ENDLESS, bytearray()

    def read_to_end(self) -> None:
        self.refuse()

    def refuse(self) -> NoReturn:
        """Raise Unreadable: what comes cannot be read without its end."""
        raise Unreadable("cannot be heard while it arrives, as wav of PCM, au and flac can; let ffmpeg make a wav")

    def _take(self, end: int) -> None:
        while not self._ended and self._length < end:
            part = self._stream.read(min(end - self._length, REMEMBERED))
            self._ended = not part
            self._recent += part
            self._length += len(part)
            # Rarely, since everything behind them moves.
            if len(self._recent) > 2 * REMEMBERED:
                del self._recent[:-REMEMBERED]

    def read(self, size: int | None = -1, /) -> bytes:
        """See `Pipe.read`.

        Raises:
            Unreadable: what stood there is forgotten.
        """
        end = self._limit if size is None or size < 0 else self._at + size
        self._take(end)
        first = self._length - len(self._recent)
        if self._at < first:
            raise Unreadable("cannot be heard while it arrives: its header has to be read again; save it as a file")
        part = bytes(self._recent[self._at - first : end - first])
        self._at += len(part)
        return part
