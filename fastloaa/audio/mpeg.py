"""How long an MPEG audio stream (mp3, mp2) is, by walking from frame to frame; nothing is decoded.

Such a stream does not say its length, and decoders guess it from the rate of its first frame, which is wrong wherever
the rate varies. Encoders that know better put a frame without sound in front, by Xing or Fraunhofer (VBRI), that
counts the others; of joined files it counts the first.

Source: ISO/IEC 11172-3 and 13818-3, 2.4.1.3 and 2.4.2.3.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

_KBITS = {  # (MPEG-1, layer) -> kbit/s at index 1 to 14
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_SEARCH = 1 << 16  # bytes read at a time where frames are looked for


class _Frame(NamedTuple):
    at: int  # of its first byte
    size: int  # in bytes
    samples: int
    kind: tuple[int, int, int]  # version, layer and rate in Hz: the same in all frames of a stream


@dataclass(frozen=True)
class MpegStream:
    """What is in a stream.

    Attributes:
        start, end: where its first frame with sound begins and its last whole one ends, in bytes.
        samples: in all frames with sound, the encoder's padding included.
        rate: in Hz.
        whole: whether a frame in front says how many follow, and no more do.
    """

    start: int
    end: int
    samples: int
    rate: int
    whole: bool


def scan_mpeg(file: BinaryIO, begin: int, end: int) -> MpegStream | None:
    """Walk over the frames in the bytes from `begin` to `end`; None: there are none, or of no declared size."""
    frames = _frames(file, _behind_tags(file, begin), end)
    first = next(frames, None)
    if first is None:
        return None
    counted = _counted_frames(file, first)
    start, samples, count, last = first.at, first.samples, 1, first
    if counted is not None:
        start, samples, count = first.at + first.size, 0, 0
    for last in frames:
        samples += last.samples
        count += 1
    # Some encoders count the frame in front as well.
    whole = counted is not None and 0 < count <= counted + 1
    return MpegStream(start, last.at + last.size, samples, first.kind[2], whole)


def _frames(file: BinaryIO, at: int, end: int) -> Iterator[_Frame]:
    kind = None
    while at + 4 <= end:
        file.seek(at)
        frame = _frame(at, file.read(4))
        if frame is None or frame.kind != (kind or frame.kind) or (kind is None and not _followed(file, frame, end)):
            found = _find(file, at + 1, end, kind)
            if found is None:
                return
            frame = found
        if frame.at + frame.size > end:
            return
        kind = frame.kind
        yield frame
        at = frame.at + frame.size


def _find(file: BinaryIO, at: int, end: int, kind: tuple[int, int, int] | None) -> _Frame | None:
    """The next frame that another one follows: four bytes that look like its header are found in any data."""
    while at + 4 <= end:
        file.seek(at)
        data = file.read(min(_SEARCH, end - at))
        place = data.find(b"\xff")
        while 0 <= place <= len(data) - 4:
            frame = _frame(at + place, data[place : place + 4])
            if frame is not None and frame.kind == (kind or frame.kind) and _followed(file, frame, end):
                return frame
            place = data.find(b"\xff", place + 1)
        if len(data) < 4:
            return None
        at += len(data) - 3
    return None


def _followed(file: BinaryIO, frame: _Frame, end: int) -> bool:
    following = frame.at + frame.size
    if following + 4 > end:
        return following <= end
    file.seek(following)
    other = _frame(following, file.read(4))
    return other is not None and other.kind == frame.kind


def _frame(at: int, header: bytes) -> _Frame | None:
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)  # version 3 is MPEG-1, 2 MPEG-2, 0 its extension
    index, rate_index, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 4 or not 1 <= index <= 14 or rate_index == 3:
        return None
    rate = (44100, 48000, 32000)[rate_index] >> (0 if version == 3 else 1 if version == 2 else 2)
    bits = 1000 * _KBITS[version == 3, layer][index - 1]
    if layer == 1:
        return _Frame(at, (12 * bits // rate + padding) * 4, 384, (version, layer, rate))
    samples = 576 if layer == 3 and version != 3 else 1152
    return _Frame(at, samples // 8 * bits // rate + padding, samples, (version, layer, rate))


def _behind_tags(file: BinaryIO, at: int) -> int:
    """Where ID3v2 tags (titles, pictures) end."""
    while True:
        file.seek(at)
        tag = file.read(10)
        if tag[:3] != b"ID3" or len(tag) < 10:
            return at
        size = 0
        for byte in tag[6:]:
            size = size << 7 | byte & 0x7F
        at += 10 + size + (10 if tag[5] & 0x10 else 0)


def _counted_frames(file: BinaryIO, first: _Frame) -> int | None:
    """How many frames the first one says will follow; None: it is a frame with sound."""
    file.seek(first.at)
    content = file.read(min(first.size, 64))
    for name in (b"Xing", b"Info"):
        place = content.find(name, 4)
        if place > 0:
            has_count = len(content) >= place + 12 and content[place + 7] & 1
            return int.from_bytes(content[place + 8 : place + 12], "big") if has_count else 0
    if content[36:40] == b"VBRI":
        return int.from_bytes(content[50:54], "big")
    return None
