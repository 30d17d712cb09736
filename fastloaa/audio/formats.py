"""Which files are sounds, by their names, and which of them this installation reads."""

from fastloaa.extras import installed, needs

needs("soundfile")

from os import PathLike, fspath
from pathlib import PurePath
from typing import BinaryIO

import soundfile

# soundfile names formats; a few are better known by other suffixes. RAW has no header, so it cannot be read alone.
_NAMES = {name.lower() for name in soundfile.available_formats()} - {"raw"}
LIBSNDFILE_SUFFIXES = frozenset(
    f".{name}" for name in _NAMES | {"8svx", "aif", "aifc", "iff", "mp2", "oga", "opus", "sph", "snd", "wave"}
)
"""Of files that libsndfile reads, in lower case: always readable."""

_FFMPEG = "3g2 3gp aac ac3 amr ape asf avi dts eac3 flv m4a m4b m4v mka mkv mov mp4 mpc tta weba webm wma wmv wv"
FFMPEG_SUFFIXES = frozenset(f".{name}" for name in _FFMPEG.split())
"""Of sounds, and films with sound, that need the extra `fastloaa[formats]`, in lower case."""


def formats_installed() -> bool:
    """Whether PyAV, the extra `fastloaa[formats]`, is there."""
    return installed("av")


def sound_suffixes() -> frozenset[str]:
    """Suffixes of the files that this installation reads, in lower case: `.wav`, `.flac`, ..."""
    return LIBSNDFILE_SUFFIXES | FFMPEG_SUFFIXES if formats_installed() else LIBSNDFILE_SUFFIXES


_SUFFIXES = LIBSNDFILE_SUFFIXES | FFMPEG_SUFFIXES


def suffix(path: str | PathLike[str]) -> str:
    """`PurePath(path).suffix.lower()`, for millions of names."""
    text = fspath(path)
    dot = text.rfind(".")
    return text[dot:].lower() if dot > text.rfind("/") + 1 else ""


def is_sound(path: str | PathLike[str]) -> bool:
    """Whether a file's name is that of a sound, readable here or not; the file itself is not looked at."""
    return suffix(path) in _SUFFIXES


def is_readable(path: str | PathLike[str]) -> bool:
    """Whether a file's name is that of a sound which this installation reads; the file itself is not looked at."""
    return PurePath(path).suffix.lower() in sound_suffixes()


def needs_ffmpeg(path: str | PathLike[str], content: BinaryIO) -> bool:
    """Whether a file is, by its name or its first bytes, of a kind that only `fastloaa[formats]` reads."""
    content.seek(0)
    start = content.read(16)
    matroska, asf, mp4, amr = (
        start[:4] == b"\x1aE\xdf\xa3",
        start[:4] == b"0&\xb2u",
        start[4:8] == b"ftyp",
        start[:5] == b"#!AMR",
    )
    adts = start[:1] == b"\xff" and start[1:2] in (b"\xf0", b"\xf1", b"\xf8", b"\xf9")
    return PurePath(path).suffix.lower() in FFMPEG_SUFFIXES or matroska or asf or mp4 or amr or adts
