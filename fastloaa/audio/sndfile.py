"""Sounds by libsndfile, read forwards until nothing more comes: what decodes is the length."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import torch
from torch import Tensor

from fastloaa.audio.headers import Header, View, is_placeholder, mpeg_header, read_header
from fastloaa.audio.mpeg import MpegStream
from fastloaa.audio.sources import ENDLESS, LONGEST_PIPE, Pipe, Unreadable, length_of
from fastloaa.errors import FastloaaError

BLOCK = 1 << 18  # numbers at a time, of all channels
# libsndfile shortens a cut wav, aiff or caf without an error; only its log tells what the header promised.
_CUT_CHUNK = re.compile(r"^\s*(?:data|SSND)\s*:\s*(\d+) \(should be (\d+)\)", re.MULTILINE)
_SAMPLE_BY_SAMPLE = re.compile(r"PCM_|FLOAT|DOUBLE|[AU]LAW")
_LENGTH_IS_A_GUESS = {"MP3", "SDS"}
_LARGEST = 1 << 62  # frames; libsndfile gives about twice as many where it does not know


class NotLibsndfiles(FastloaaError):
    """libsndfile does not know this kind of file, for the reason given."""


class _Forward(soundfile.SoundFile):
    """Without the seek behind every read, which codecs that only run forwards refuse and others answer by decoding."""

    def seekable(self) -> bool:
        return False


class SndFile:
    """A sound that libsndfile decodes.

    Args:
        source: seekable bytes.
        path: the same as a file, if it is one: libsndfile reads that faster.

    Attributes:
        rate: in Hz.
        frames: samples of each channel, None if only decoding would tell. A hint.
        end: samples until the sound ended, known when `blocks` is at its end.
        note: what the user should know about the file, one line.

    Raises:
        NotLibsndfiles: it is of another kind.
        Unreadable: it is cut.
    """

    def __init__(self, source: BinaryIO, path: Path | None = None) -> None:
        self._source, self._path = source, path
        self._view: View | None = None
        self._ends = not isinstance(source, Pipe) or length_of(source) < ENDLESS
        self._header = read_header(source)
        self._stream: MpegStream | None = None  # where libsndfile is given it alone
        self._sound = self._open()
        self._read_endless()
        self.frames: int | None = self._sound.frames if self._sound.frames < _LARGEST else None
        is_mpeg = self._sound.format == "MP3" or self._sound.subtype.startswith("MPEG")
        if is_mpeg and self._ends:
            self._follow_frames(mpeg_header(source))
        elif self._header.samples is not None or self._header.endless_from is not None:
            self.frames = self._header.samples
        self._guessed = is_mpeg or self._sound.format in _LENGTH_IS_A_GUESS or self.frames is None
        self.rate: int = self._sound.samplerate
        self.end = 0
        self.note = self._header.note
        for declared, found in _CUT_CHUNK.findall(self._sound.extra_info):
            if int(found) < int(declared) and not is_placeholder(int(declared)) and self._ends:
                raise Unreadable(f"truncated, {found} of {declared} bytes of samples; copy it again")

    def _follow_frames(self, header: Header) -> None:
        """Read an MPEG stream to its end, where libsndfile would stop at what it takes for the length."""
        if (stream := header.mpeg) is None:
            return
        self._header = header
        if stream.whole and self.frames is not None:
            self.frames = min(self.frames, stream.samples)  # without the encoder's padding
            return
        self._sound.close()
        self._stream = stream
        self._sound = self._open()
        self.frames = stream.samples

    def _read_endless(self) -> None:
        """Read a wav that is still being written as samples without a header: no size in one goes beyond 4 GiB."""
        begin, sound = self._header.endless_from, self._sound
        if begin is None or not isinstance(self._source, Pipe):
            return
        sound.close()
        if _SAMPLE_BY_SAMPLE.match(sound.subtype):
            self._view = View(self._source, {}, begin)
            self._sound = _Forward(
                self._view, "r", sound.samplerate, sound.channels, sound.subtype, self._header.endian, "RAW"
            )
        else:  # libsndfile would make up the packets that are missing
            self._source.read_to_end()
            self._ends, self._header = True, read_header(self._source)
            self._sound = self._open()

    def _open(self) -> _Forward:
        if self._stream is not None:
            self._view = View(self._source, {}, self._stream.start, self._stream.end, ENDLESS)
        elif self._path is None or self._header.patches or self._header.length is not None:
            self._view = View(self._source, self._header.patches, last=self._header.length)
        try:
            return _Forward(os.fsencode(self._path) if self._view is None else self._view)  # type: ignore[arg-type]
        except (soundfile.SoundFileError, TypeError) as error:  # TypeError: headerless formats, known by their suffix
            self._check_view()
            raise NotLibsndfiles(str(error).rpartition(": ")[2].rstrip(".")) from error

    def blocks(self, first: int, last: int | None = None, size: int | None = None) -> Iterator[Tensor]:
        """Samples from number `first` to before `last`, channels averaged: float32 `[n]`, n >= 1.

        Args:
            last: None: until the sound ends.
            size: most samples of a block; None: as many as are quick to read.

        Raises:
            Unreadable: damaged, or less comes than the header declares.
            OSError: the source cannot be read.
        """
        at = 0
        if first and self._ends and soundfile.SoundFile.seekable(self._sound):
            try:
                at = self._sound.seek(first)
            except soundfile.SoundFileError:  # some codecs cannot after all, or the sound is shorter
                self._sound.close()
                self._sound = self._open()
        most = max(BLOCK // self._sound.channels, 1)
        block = np.empty((min(size or most, most), self._sound.channels), dtype="float32")
        while last is None or at < last:
            try:
                count = len(block) if last is None else min(len(block), last - at)
                samples = torch.from_numpy(self._sound.read(count, out=block))
            except soundfile.SoundFileError as error:
                self._check_view()
                raise Unreadable(f"truncated or damaged ({str(error).rstrip('.')}); copy it again") from error
            self._check_view()
            if not len(samples):
                break
            at += len(samples)
            if at > first:
                yield samples[max(len(samples) - (at - first), 0) :].mean(1)
        else:
            return
        self.end = at
        if isinstance(self._source, Pipe) and self._source.is_full:
            raise Unreadable(f"holds more than {LONGEST_PIPE >> 20} MiB; save it as a file")
        if self.frames is not None and at < self.frames - self._slack(self.frames):
            raise Unreadable(f"truncated or damaged, {at} of {self.frames} samples; copy it again")

    def _check_view(self) -> None:
        """Raise what the source ended with, if that is why libsndfile found no more."""
        if self._view is not None and self._view.error is not None:
            raise self._view.error

    def _slack(self, frames: int) -> int:
        """How many samples fewer than `frames`, which were declared or counted, are in order."""
        if self._header.mpeg is not None:
            return frames // 50 + 10 * 1152  # some frames have lost what they need from those before
        return frames if self._guessed else 0

    def close(self) -> None:
        self._sound.close()
