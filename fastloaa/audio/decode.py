"""Sound files to mono waveforms at one rate."""

import os
import re
from fractions import Fraction
from functools import lru_cache
from os import PathLike
from pathlib import Path

import soundfile
import torch
from torch import Tensor
from torchaudio.transforms import Resample

from fastloaa.errors import FastloaaError

# libsndfile shortens a cut wav, aiff or caf without an error; only its log tells what the header promised.
_CUT_CHUNK = re.compile(r"^\s*(?:data|SSND)\s*:\s*(\d+) \(should be (\d+)\)", re.MULTILINE)
# Programs that write to a pipe cannot know the length and declare the largest one: such a file is whole.
_STREAMED = 0x7FFF0000


class AudioError(FastloaaError, ValueError):
    """A file that cannot be used as a recording; the message is one line that names the file."""


def load_audio(
    path: str | PathLike[str], sample_rate: int = 16000, start: float = 0.0, stop: float | None = None
) -> Tensor:
    """Decode a sound file: channels averaged, resampled, full scale at ±1.

    Args:
        path: whatever libsndfile decodes: wav, flac, ogg (Vorbis, Opus), mp3, aiff and more; any channels and rate.
        sample_rate: rate of the result in Hz.
        start, stop: the segment to read, in seconds; only it is decoded. What lies beyond the end of the file is
            missing from the result; None stops at the end.

    Returns:
        float32 `[samples]`, samples >= 1.

    Raises:
        AudioError: the path is missing or a folder, or the file is not audio, empty, truncated, damaged, holds NaN
            or infinite samples, has a rate outside 1 kHz to 1 MHz, or ends before `start`. Ogg and mp3 are streams
            that do not declare their length, so a cut one counts as a short recording.
    """
    path = Path(path)
    samples, rate = _decode(path, start, stop)
    if not len(samples):
        raise AudioError(f"{path}: holds no samples; record it again or leave it out")
    if not samples.isfinite().all():
        raise AudioError(f"{path}: holds NaN or infinite samples; write it again with samples between -1 and 1")
    if not 1_000 <= rate <= 1_000_000:
        raise AudioError(f"{path}: its header says {rate} Hz, expected 1 kHz to 1 MHz; correct the header")
    return resample(samples, rate, sample_rate)


def resample(samples: Tensor, source: int, target: int) -> Tensor:
    """Samples `[..., samples]` at the rate `target` instead of `source`, both in Hz, by a windowed sinc."""
    return samples if source == target else _resampler(source, target)(samples)


def _decode(path: Path, start: float, stop: float | None) -> tuple[Tensor, int]:
    """The samples of a segment of a file, channels averaged, float32 `[samples]`, and the rate in Hz."""
    if path.is_dir():
        raise AudioError(f"{path}: is a folder, expected a sound file")
    if not path.is_file():
        raise AudioError(f"{path}: no such file; check the path")
    try:
        sound = soundfile.SoundFile(os.fsencode(path))  # bytes: soundfile refuses names that are not UTF-8
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: headerless formats, known by their suffix
        raise AudioError(f"{path}: not a sound file that libsndfile reads; convert it to wav, flac or ogg") from error
    with sound:
        for declared, found in _CUT_CHUNK.findall(sound.extra_info):
            if int(found) < int(declared) < _STREAMED:
                raise AudioError(f"{path}: truncated, {found} of {declared} bytes of samples; copy it again")
        first = round(start * sound.samplerate)
        end = sound.frames if stop is None else min(round(stop * sound.samplerate), sound.frames)
        if first and first >= sound.frames:
            seconds = sound.frames / sound.samplerate
            raise AudioError(f"{path}: ends after {seconds:g} s, expected sound from {start:g} s; correct the times")
        try:
            sound.seek(first)
            samples = torch.from_numpy(sound.read(end - first, dtype="float32", always_2d=True))
        except (soundfile.SoundFileError, ValueError, MemoryError) as error:  # the latter two: absurd lengths
            reason = str(error).rstrip(".")
            raise AudioError(f"{path}: truncated or damaged ({reason}); copy it again") from error
        # The length of an mp3 is only estimated unless its encoder noted it.
        if len(samples) < end - first and sound.format != "MP3":
            raise AudioError(f"{path}: truncated, {len(samples)} of {end - first} samples; copy it again")
        return samples.mean(1), sound.samplerate


@lru_cache(maxsize=32)
def _resampler(source: int, target: int) -> Resample:
    """The windowed-sinc resampler of two rates in Hz, kept: building one costs half as much as using it on 5 s."""
    # Its filters grow with the reduced ratio: gigabytes at 44,101 -> 16,000 Hz. All usual rates reduce to terms below
    # 2000 (441/160, 1280/147) and stay exact; any other is off by at most one part in 4000, half a cent.
    low, high = sorted((source, target))
    ratio = Fraction(low, high).limit_denominator(2000)
    if source > target:
        return Resample(ratio.denominator, ratio.numerator)
    return Resample(ratio.numerator, ratio.denominator)
