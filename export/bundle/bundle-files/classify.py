"""What the model hears in sound files: `python classify.py clip.wav ...`, with onnxruntime, numpy and soundfile.

A recording that is longer than the model's window is heard in windows, and its answer is their mean. What cannot be
used is named, and the other files are answered for.
"""

import io
import json
import math
import mmap
import os
import re
import sys
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile

HERE = Path(__file__).resolve().parent
ABOUT = json.loads((HERE / "model.json").read_text(encoding="utf-8"))
RATE, WINDOW, HOP = ABOUT["sample_rate"], ABOUT["window"], ABOUT["hop"]  # Hz, samples, samples


class Sound(soundfile.SoundFile):
    """Read forwards: some codecs cannot seek, and some headers do not know how long the sound is."""

    def seekable(self) -> bool:
        return False


def chunks(wav: mmap.mmap, at: int) -> Iterator[tuple[int, bytes, int]]:
    """Position, name and size of the chunks from a position on."""
    while at + 8 <= len(wav):
        size = int.from_bytes(wav[at + 4 : at + 8], "little")
        yield at, wav[at : at + 4], size
        at += 8 + size + size % 2


def finished(path: str) -> bytes | io.BytesIO:
    """The file; of a wav whose recorder was cut off before it wrote how much there is, with that filled in."""
    file = Path(path)
    if not file.is_file():
        raise ValueError("no such file, or a folder or device; expected a sound file")
    if not file.stat().st_size:
        raise ValueError("empty, 0 bytes; copy it again")
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as wav:
        is_wav = wav[:4] == b"RIFF" and wav[8:12] == b"WAVE"
        at, _, size = next((chunk for chunk in chunks(wav, 12) if chunk[1] == b"data"), (len(wav), b"", 0))
        rest = len(wav) - at - 8
        if not is_wav or size >= rest or (size and any(wav[4:8])):
            return os.fsencode(path)
        behind = list(chunks(wav, at + 8 + size + size % 2))
        if behind and all(name.isascii() and name.decode().isprintable() for _, name, _ in behind):
            last, _, length = behind[-1]
            if len(wav) - last - 8 in (length, length + 1):  # other chunks, so there are no samples
                return os.fsencode(path)
        return io.BytesIO(wav[: at + 4] + min(rest, 0xFFFFFFFF).to_bytes(4, "little") + wav[at + 8 :])


def mono(sound: Sound) -> Iterator[np.ndarray]:
    """Samples of a file in blocks, channels averaged; ValueError says why they cannot be used."""
    count = 0
    while len(block := sound.read(1 << 16, dtype="float32", always_2d=True)):
        if not np.isfinite(block).all():
            raise ValueError("holds NaN or infinite samples")
        count += len(block)
        yield block.mean(axis=1)
    # libsndfile shortens a cut wav without an error; its log says what the header promised (more: a stream).
    cut = re.search(r"(?:data|SSND)\s*: (\d+) \(should be (\d+)\)", sound.extra_info)
    missing = count < sound.frames < 1 << 62 and sound.format != "MP3"
    if (cut and int(cut[2]) < int(cut[1]) < 0x7FFF0000) or missing:
        raise ValueError("truncated; copy it again")
    if not count:
        raise ValueError("holds no samples")


def resampled(blocks: Iterable[np.ndarray], source: int) -> Iterator[np.ndarray]:
    """Blocks at `source` Hz as blocks at the model's rate: a sinc of 6 zero crossings under a Hann window."""
    # Filters grow with the ratio's terms. Usual rates stay exact, others are off by one part in 4000 at most.
    ratio = Fraction(min(source, RATE), max(source, RATE)).limit_denominator(2000)
    new, old = ratio.as_integer_ratio() if source > RATE else reversed(ratio.as_integer_ratio())
    if new == old:
        yield from blocks
        return
    cutoff = 0.99 * min(old, new)
    reach = math.ceil(6 * old / cutoff)
    span = 2 * reach + old  # of samples that `new` results are made from; the next ones begin `old` later
    times = np.arange(-reach, reach + old) / old - np.arange(new)[:, np.newaxis] / new
    taper = np.cos(np.clip(times * cutoff, -6, 6) * np.pi / 12) ** 2
    filters = (np.sinc(times * cutoff) * taper * cutoff / old).astype(np.float32).T  # [span, new]

    def filtered(samples: np.ndarray) -> np.ndarray:
        return (np.lib.stride_tricks.sliding_window_view(samples, span)[::old] @ filters).ravel()

    kept, count = np.zeros(reach, np.float32), 0
    for block in blocks:
        count += len(block)
        kept = np.concatenate((kept, block))
        if len(kept) >= span:
            done = filtered(kept)
            yield done
            kept = kept[len(done) // new * old :]
    rest = math.ceil(new * count / old) - (count + reach - len(kept)) // old * new
    yield filtered(np.concatenate((kept, np.zeros(reach + old, np.float32))))[:rest]


def windows(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Windows a hop apart, and one that ends with the recording; of a short recording all of it."""
    kept, heard = np.zeros(0, np.float32), 0
    for block in blocks:
        kept = np.concatenate((kept, block))
        while len(kept) >= (heard and HOP) + WINDOW:
            kept, heard = kept[heard and HOP :], WINDOW
            yield kept[:WINDOW]
    if len(kept) < ABOUT["shortest"]:
        raise ValueError(f"{len(kept)} samples at {RATE} Hz; the model looks at {ABOUT['shortest']} and more")
    if len(kept) > heard:
        yield kept[-WINDOW:]


def classify(session: onnxruntime.InferenceSession, path: str) -> np.ndarray:
    """Probabilities of the classes, `[classes]`: the mean over the windows of a file."""
    with Sound(finished(path)) as sound:
        if not 1_000 <= sound.samplerate <= 1_000_000:
            raise ValueError(f"its header says {sound.samplerate} Hz, expected 1 kHz to 1 MHz; correct the header")
        answers = [
            session.run(["probabilities"], {"waveform": window[np.newaxis]})[0][0]  # [batch, samples]
            for window in windows(resampled(mono(sound), sound.samplerate))
        ]
    mean = np.stack(answers).mean(axis=0, dtype=np.float64)
    if not np.isfinite(mean).all():
        raise ValueError("the model's answer is not a number; divide the samples by their full scale, to -1 to 1")
    return mean


def main(paths: list[str]) -> bool:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may be of any bytes
    # With onnxruntime-gpu: [("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(HERE / "model.onnx", providers=["CPUExecutionProvider"])
    several, broken = ABOUT["multi_label"], 0  # labels to a clip
    for path in paths:
        try:
            probabilities = classify(session, path)
        except (OSError, RuntimeError, ValueError, TypeError, MemoryError) as error:  # soundfile's are RuntimeErrors
            print(f"{path}: {getattr(error, 'error_string', error)}", file=sys.stderr)
            broken += 1
            continue
        for best in probabilities.argsort()[::-1][: None if several else ABOUT["top"]]:
            if not several or probabilities[best] >= ABOUT["threshold"]:
                print(f"{path}\t{ABOUT['labels'][best]}\t{probabilities[best]:.4f}")
    return broken > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
