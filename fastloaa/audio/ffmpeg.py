"""Sounds by FFmpeg, through PyAV: what libsndfile does not know, such as m4a, aac, webm, wma and mp4."""

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastloaa.audio.sources import Unreadable

# Those that read nothing but the file itself: playlists and the like would open others, and addresses in the network.
_CONTAINERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dts,eac3,flac,flv,loas,matroska,mov,mp3,mpc,mpc8,mpeg,mpegts,ogg,"
    "tta,w64,wav,wv"
)
_BLOCK = 1 << 16  # samples; a codec's own frames have about a thousand


class FFmpegFile:
    """A sound that FFmpeg decodes, the best of its audio tracks.

    Args:
        source: seekable bytes.

    Attributes:
        rate: in Hz.
        frames: samples of each channel as far as the header tells, None if only decoding would. A hint.
        end: samples until the sound ended, known when `blocks` is at its end.
        note: None.

    Raises:
        Unreadable: FFmpeg does not know it either, or there is no sound in it.
        ImportError: PyAV is not installed.
    """

    note = None

    def __init__(self, source: BinaryIO) -> None:
        import av

        self._errors = (av.FFmpegError, ValueError, OverflowError)
        source.seek(0)
        try:
            self._container: Any = av.open(source, "r", options={"format_whitelist": _CONTAINERS})
        except self._errors as error:
            raise Unreadable(f"not a sound file that libsndfile or FFmpeg reads ({_reason(error)})") from error
        if not self._container.streams.audio:
            self._container.close()
            raise Unreadable("holds no sound, only pictures or text; expected a sound file")
        self._stream = self._container.streams.best("audio")
        self._decoded = self._decode()
        self._next = next(self._decoded, None)
        if self._next is None:
            self._container.close()
            raise Unreadable("holds no samples; record it again or leave it out")
        self.rate: int = self._next.sample_rate
        self.end = 0
        # Of other containers it is missing, rounded, or guessed from the rate of bytes.
        exact = "mov" in self._container.format.name and self._stream.duration is not None
        self.frames = round(self._stream.duration * self._stream.time_base * self.rate) if exact else None

    def _decode(self) -> Iterator[Any]:
        try:
            for frame in self._container.decode(self._stream):
                if frame.samples:
                    yield frame
        except self._errors as error:
            raise Unreadable(f"truncated or damaged ({_reason(error)}); copy it again") from error

    def blocks(self, first: int, last: int | None = None, size: int | None = None) -> Iterator[Tensor]:
        """Samples from number `first` to before `last`, channels averaged: float32 `[n]`, n >= 1.

        Args:
            last: some more may come; None: until the sound ends.
            size: about how many make a block; None: as many as are quick to decode.

        Raises:
            Unreadable: damaged, less comes than the header declares, or the rate changes on the way.
        """
        at, kept = 0, []
        while self._next is not None:
            frame, self._next = self._next, next(self._decoded, None)
            if frame.sample_rate != self.rate:
                raise Unreadable(f"changes from {self.rate} to {frame.sample_rate} Hz on the way; convert it to wav")
            begin, at = at, at + frame.samples
            samples = _mono(frame)
            if self._next is None and self.frames is not None and begin < self.frames < at:
                at = self.frames  # what follows only fills the codec's last frame
            if at > first:
                kept.append(samples[max(first - begin, 0) : at - begin])
            if kept and (
                sum(map(len, kept)) >= (size or _BLOCK) or self._next is None or (last is not None and at >= last)
            ):
                yield torch.from_numpy(np.concatenate(kept))
                kept = []
            if last is not None and at >= last and not kept:
                return
        self.end = at
        if self.frames is not None and at < self.frames - self.rate // 4:  # durations come in coarse units
            raise Unreadable(f"truncated, {at} of {self.frames} samples; copy it again")

    def close(self) -> None:
        self._decoded.close()  # type: ignore[attr-defined]
        self._container.close()


def _mono(frame: Any) -> NDArray[np.float32]:
    """A frame's samples at full scale ±1, channels averaged, `[samples]`."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(frame.samples, -1).T
    if samples.dtype.kind == "f":
        return samples.astype("float32", copy=False).mean(0)
    half = 1 << 8 * samples.dtype.itemsize - 1
    centred = samples.astype("float64") - (half if samples.dtype.kind == "u" else 0)
    return (centred / half).mean(0).astype("float32")


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).split("\n", 1)[0]
