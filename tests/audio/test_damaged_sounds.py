"""Broken bytes: only documented errors come out, quickly, and no memory beyond a bound."""

import gc
import random
import resource
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastloaa.audio import AudioError, AudioWarning, load_audio
from fastloaa.audio.decode import sound_seconds
from helpers.sounds import encoded, flac_of_length, mp3_in_wav, mp3_of_variable_rate, noise, without_first_frame

SECONDS = 4  # for each kind
MEMORY = 400 << 20  # bytes beyond what was in use before; the sounds have 200 KB


def seeds() -> dict[str, bytes]:
    stereo = noise(8000, channels=2)
    mp3 = mp3_of_variable_rate(noise(8000), 16000)
    return {
        "wav": encoded(stereo, 16000, "WAV"),
        "adpcm.wav": encoded(noise(8000), 16000, "WAV", "MS_ADPCM"),
        "gsm.wav": encoded(noise(8000), 8000, "WAV", "GSM610"),
        "mp3.wav": mp3_in_wav(mp3, 16000),
        "flac": encoded(stereo, 16000, "FLAC"),
        "streamed.flac": flac_of_length(encoded(stereo, 16000, "FLAC"), 0),
        "ogg": encoded(stereo, 16000, "OGG"),
        "opus": encoded(stereo, 16000, "OGG", "OPUS"),
        "mp3": mp3,
        "headless.mp3": without_first_frame(mp3),
    }


def broken(content: bytes, random: random.Random) -> Iterator[bytes]:
    """The content with bits turned, numbers replaced, pieces cut out, doubled or moved, mostly in its header."""
    while True:
        data = bytearray(content)
        for _ in range(random.choice([1, 1, 2, 5, 50])):
            if not data:
                break
            reach = random.choice([64, 512, len(data)])
            at = random.randrange(min(reach, len(data)))
            match random.randrange(6):
                case 0:
                    data[at] ^= 1 << random.randrange(8)
                case 1:
                    size = random.choice([1, 2, 4, 8])
                    data[at : at + size] = random.choice([bytes(size), b"\xff" * size, b"\x7f" + b"\xff" * (size - 1)])
                case 2:
                    del data[at : at + random.randrange(1, 200)]
                case 3:
                    data[at:at] = data[at : at + random.randrange(1, 200)]
                case 4:
                    data[at:at] = random.randbytes(random.randrange(1, 2000))
                case 5:
                    del data[at + 1 :]
        yield bytes(data)


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("kind", list(seeds()))
def test_broken_files(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    content = seeds()[kind]
    path.write_bytes(content)
    assert len(load_audio(path, 16000)) >= 7900  # whole, it is read
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read, refused = 0, []
    end = time.monotonic() + SECONDS
    for number, data in enumerate(broken(content, random.Random(kind))):
        if number == 2000 or time.monotonic() > end:
            break
        path.write_bytes(data)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", AudioWarning)
                found = load_audio(path, 16000)
                assert found.isfinite().all()
                assert sound_seconds(path) >= 0
            read += 1
        except AudioError as error:
            refused.append(str(error))
    assert read, "otherwise little was tried"
    assert refused, "otherwise little was tried"
    assert all(message.startswith(f"{path}: ") and "\n" not in message for message in refused)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < MEMORY
