"""Headers that say less, or more, than the file behind them holds, and the file as libsndfile should see it.

Programs fill in the length of a recording when they end. Where they were cut off, or wrote to a pipe, it is still zero
or the largest number; libsndfile then reads nothing, or stops at a number that was only a guess.
"""

import io
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from fastloaa.audio.mpeg import MpegStream, scan_mpeg
from fastloaa.audio.sources import ENDLESS, Pipe, length_of

_UNKNOWN = 0xFFFFFFFF
_MPEG_TAGS = (0x50, 0x55)  # of codecs in wav
_CHUNKS = 10_000  # more before the samples are no recording
_LEFTOVERS = 4096  # bytes, as tags and padding have them; more may well be sound
_UNFINISHED = "the header was never finished; everything behind it is read"


@dataclass
class Header:
    """What a header says wrongly.

    Attributes:
        patches: byte position -> the bytes that should be there.
        samples: how many it declares, where that is taken out by a patch.
        length: bytes up to where the samples end, if libsndfile must not look behind; else None.
        mpeg: of an MPEG audio stream, what is in it.
        endless_from: byte where the samples of a wav begin whose writer has not come to their end yet, else None.
        endian: of its numbers, as libsndfile names it.
        note: what the user should know, one line.
    """

    patches: dict[int, bytes] = field(default_factory=dict)
    samples: int | None = None
    length: int | None = None
    mpeg: MpegStream | None = None
    endless_from: int | None = None
    endian: str = "LITTLE"
    note: str | None = None


def is_placeholder(size: int) -> bool:
    """Whether a size is the largest that programs can think of: those that write to a pipe cannot know the length."""
    return 0x7FFF0000 <= size <= 0x80000100 or 0xFFFF0000 <= size <= _UNKNOWN or size >= 1 << 62


def read_header(file: BinaryIO) -> Header:
    """Look at the beginning of a file of any kind; its position is lost."""
    file.seek(0)
    start = file.read(12)
    if start[:4] in (b"RIFF", b"RIFX", b"RF64") and start[8:] == b"WAVE":
        return _wav(file, ">" if start[:4] == b"RIFX" else "<", start)
    if start[:4] == b"caff":
        return _caf(file)
    if start[:4] in (b".snd", b"dns."):
        return _au(file, ">" if start[:4] == b".snd" else "<", start)
    return _flac(file)


def mpeg_header(file: BinaryIO) -> Header:
    """Of a file that is known to be an MPEG audio stream, alone or in a wav."""
    header, length = read_header(file), length_of(file)
    if header.mpeg is None:
        header.mpeg = scan_mpeg(file, 0, length)
    if header.mpeg is not None and length - header.mpeg.end > _LEFTOVERS:
        other = scan_mpeg(file, header.mpeg.end, length)
        if other is not None and other.samples > 10 * 1152:  # fewer frames may be chance
            seconds = other.samples / other.rate
            header.note = f"{seconds:.1f} s of another rate or kind behind its sound are left out; convert it to wav"
    return header


def _wav(file: BinaryIO, order: str, start: bytes) -> Header:
    length = length_of(file)
    at, codec, long_size = 12, 0, None
    for _ in range(_CHUNKS):
        file.seek(at)
        name, size = _chunk(file.read(8), order)
        if name == b"data":
            break
        if name == b"fmt ":
            codec = int.from_bytes(file.read(2), "little" if order == "<" else "big")
        elif name == b"ds64":
            file.read(8)
            long_size = at + 16, int.from_bytes(file.read(8), "little")
        at += 8 + size + size % 2
        if not name or at >= length:
            return Header()
    else:
        return Header()
    begin, rest = at + 8, length - at - 8
    where, width, declared = at + 4, 4, size
    if long_size is not None and size == _UNKNOWN:
        (where, declared), width = long_size, 8
    _, whole = _chunk(start[:8], order)
    header = Header(endian="LITTLE" if order == "<" else "BIG")
    open_ended = not declared or is_placeholder(declared)
    # What is still being written tells nothing by what follows: waiting for that would be waiting for ever.
    endless = length == ENDLESS and open_ended
    if endless or (rest > 0 and not _is_finished(file, order, begin, declared, whole, length)):
        known = rest if width == 8 or rest < _UNKNOWN else _UNKNOWN
        header.patches[where] = struct.pack(order + ("Q" if width == 8 else "I"), known)
        header.note = None if open_ended and isinstance(file, Pipe) else _UNFINISHED  # who writes to one cannot know
        header.endless_from = begin if endless else None
        declared = known
    left = rest - declared
    if length == ENDLESS:
        header.length = begin + declared
    elif left > _LEFTOVERS and not _chunks_follow(file, order, begin + declared + declared % 2, length):
        header.length = begin + declared
        left_out = f"{left} bytes behind the samples that its header declares are left out; correct the header"
        header.note = f"{header.note}; {left_out}" if header.note else left_out
    if codec in _MPEG_TAGS and length < ENDLESS:
        header.mpeg = scan_mpeg(file, begin, begin + min(declared, rest))
    return header


def _is_finished(file: BinaryIO, order: str, begin: int, declared: int, whole: int, length: int) -> bool:
    """Whether the size that a wav declares for its samples is to be believed: `declared`, of `whole` + 8 for all."""
    rest = length - begin
    if declared > rest:  # cut, or written to a pipe
        return not is_placeholder(declared)
    if declared and (whole or declared == rest):
        return True
    return _chunks_follow(file, order, begin + declared + declared % 2, length)


def _chunks_follow(file: BinaryIO, order: str, at: int, length: int) -> bool:
    """Whether nothing but well-formed chunks come from here on: then they are no samples."""
    for _ in range(_CHUNKS):
        if at >= length:
            return True
        file.seek(at)
        name, size = _chunk(file.read(8), order)
        if name in (b"", b"RIFF", b"data") or not all(0x20 <= byte < 0x7F for byte in name):  # a second recording
            return False
        at += 8 + size + size % 2
        if at > length + 1:
            return False
    return False


def _chunk(start: bytes, order: str) -> tuple[bytes, int]:
    """A chunk's name and size; an empty name at the end of the file."""
    return struct.unpack(f"{order}4sI", start) if len(start) == 8 else (b"", 0)


def _caf(file: BinaryIO) -> Header:
    length, at = length_of(file), 8
    for _ in range(_CHUNKS):
        file.seek(at)
        start = file.read(12)
        if len(start) < 12:
            break
        name, size = struct.unpack(">4sq", start)
        if name == b"data":
            rest = length - at - 12
            if size == -1 or (size == 0 and rest > 4):  # -1 stands for "to the end" in the format itself
                note = None if size == -1 else _UNFINISHED
                return Header({at + 4: struct.pack(">q", rest)}, note=note)
            break
        if size < 0:
            break
        at += 12 + size
    return Header()


def _au(file: BinaryIO, order: str, start: bytes) -> Header:
    begin, size = struct.unpack(f"{order}II", start[4:12]) if len(start) == 12 else (0, _UNKNOWN)
    if size == 0 and length_of(file) > begin:
        return Header({8: struct.pack(f"{order}I", _UNKNOWN)}, note=_UNFINISHED)
    return Header()


def _flac(file: BinaryIO) -> Header:
    """Without its number of samples libFLAC reads as many as there are."""
    file.seek(0)
    data = file.read(26)
    if len(data) < 26 or data[:4] != b"fLaC" or data[4] & 0x7F:
        return Header()
    samples = int.from_bytes(data[21:26], "big") & (1 << 36) - 1
    length = _before_tags(file)
    return Header({21: bytes([data[21] & 0xF0]) + bytes(4)} if samples else {}, samples=samples or None, length=length)


def _before_tags(file: BinaryIO) -> int | None:
    """Where tags begin that some programs put behind any sound, and libFLAC takes for damage; None: there are none."""
    length = end = length_of(file)
    if length == ENDLESS:
        return None
    file.seek(max(end - 128, 0))
    if file.read(3) == b"TAG":  # ID3v1
        end -= 128
    file.seek(max(end - 32, 0))
    footer = file.read(32)  # of an APE tag; its size is without the header of as many bytes, if there is one
    if footer[:8] == b"APETAGEX":
        size = int.from_bytes(footer[12:16], "little") + 32 * (footer[23] >> 7)
        end -= size if size <= end else 0
    return end if end < length else None


class View(io.RawIOBase):
    """A file from `first` on, with some bytes replaced, and said to be of another length: what libsndfile is given.

    Args:
        file: seekable; not closed with this.
        patches: byte position in `file` -> what is there instead.
        first, last: where it begins and ends; None: where the file does.
        claimed: how many bytes it claims to hold; None: what it does.

    Attributes:
        error: why reading has ended early. It must not be raised: libsndfile calls from C.
    """

    def __init__(
        self,
        file: BinaryIO,
        patches: Mapping[int, bytes],
        first: int = 0,
        last: int | None = None,
        claimed: int | None = None,
    ) -> None:
        self._file, self._patches, self._first = file, patches, first
        self._end = (length_of(file) if last is None else last) - first
        self._claimed = self._end if claimed is None else claimed
        self._at = 0
        self.error: BaseException | None = None

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        begin = self._first + self._at
        try:
            self._file.seek(begin)
            data = self._file.read(max(min(len(buffer), self._end - self._at), 0))
        except BaseException as error:  # Ctrl-C too, while a pipe is waited for
            self.error, data = self.error or error, b""
        for place, patch in self._patches.items():
            low, high = max(place, begin), min(place + len(patch), begin + len(data))
            if low < high:
                data = data[: low - begin] + patch[low - place : high - place] + data[high - begin :]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        # Asked for the length, it tells what it claims; tags are looked for at the true end.
        end = self._end if offset else self._claimed
        self._at = max({os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: end}[whence] + offset, 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
