"""Sound files that the tests of reading are made of, by soundfile and, where it does not write them, by hand."""

import io
import struct

import numpy as np
import soundfile
from numpy.typing import NDArray


def noise(samples: int, channels: int = 1, seed: int = 0) -> NDArray[np.float64]:
    """Between -1 and 1, `[samples]`, or `[samples, channels]` of several."""
    shape = (samples,) if channels == 1 else (samples, channels)
    return np.random.default_rng(seed).uniform(-0.8, 0.8, shape)


def encoded(samples: NDArray[np.float64], rate: int, kind: str, subtype: str | None = None, **more: object) -> bytes:
    """A file's content, of one of soundfile's formats."""
    content = io.BytesIO()
    soundfile.write(content, samples, rate, format=kind, subtype=subtype, **more)
    return content.getvalue()


def replaced(content: bytes, place: int, field: str, value: int) -> bytes:
    """With another number at a place, in one of struct's formats."""
    packed = struct.pack(field, value)
    return content[:place] + packed + content[place + len(packed) :]


def wav_with_sizes(content: bytes, riff: int | None, data: int | None) -> bytes:
    """A wav whose two sizes are these; None: as they are."""
    if riff is not None:
        content = replaced(content, 4, "<I", riff)
    return content if data is None else replaced(content, content.index(b"data") + 4, "<I", data)


def flac_of_length(content: bytes, samples: int) -> bytes:
    """A FLAC that declares another number of samples; 0 is unknown."""
    (packed,) = struct.unpack(">Q", content[18:26])  # 20 bits rate, 3 channels, 5 bits per sample, 36 samples
    return replaced(content, 18, ">Q", packed >> 36 << 36 | samples)


def loud_then_quiet(rate: int, seconds: int) -> NDArray[np.float64]:
    """Noise, then silence: an encoder of variable rate gives the beginning many times the bits of the end."""
    half = rate * seconds // 2
    return np.concatenate([noise(half), np.zeros(half)])


def mp3_of_variable_rate(samples: NDArray[np.float64], rate: int) -> bytes:
    return encoded(samples, rate, "MP3", compression_level=0.5, bitrate_mode="VARIABLE")


def without_first_frame(mp3: bytes) -> bytes:
    """Without the frame that tells the length: what a stream or a cut piece has."""
    tag = max(mp3.find(b"Xing"), mp3.find(b"Info"))
    assert tag > 0
    return mp3[mp3.index(mp3[:2], tag) :]


def mp3_in_wav(mp3: bytes, rate: int, declared_samples: int | None = None) -> bytes:
    """A mono stream in a wav, which no version of libsndfile writes; with its number of samples, true or not."""
    # MPEGLAYER3WAVEFORMAT of mmreg.h
    form = struct.pack("<HHIIHHHHIHHH", 0x55, 1, rate, 16000, 1, 0, 12, 1, 2, 417, 1, 1393)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form
    if declared_samples is not None:
        chunks += b"fact" + struct.pack("<II", 4, declared_samples)
    chunks += b"data" + struct.pack("<I", len(mp3)) + mp3 + b"\0" * (len(mp3) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks
