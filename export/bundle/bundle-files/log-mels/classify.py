"""What the model hears in log-mel spectrograms: `python classify.py clip.npy ...`, with onnxruntime and numpy.

A file holds floating-point numbers `[frames, mel bins]` of the kind that the model was trained on, not normalised. One
that is longer than the model's window is heard in windows, and its answer is their mean. What cannot be used is named,
and the other files are answered for.
"""

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime

HERE = Path(__file__).resolve().parent
ABOUT = json.loads((HERE / "model.json").read_text(encoding="utf-8"))
WINDOW, HOP, BINS = ABOUT["window"], ABOUT["hop"], ABOUT["mel_bins"]  # frames, frames, mel bins


def read(path: str) -> np.ndarray:
    """The array of an .npy, mapped into memory; of an .npz the only one, or the one that is called log_mel."""
    if not Path(path).is_file():
        raise ValueError("no such file, or a folder; expected an .npy or .npz file")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(array, np.lib.npyio.NpzFile):
            names = {name for name in array.zip.namelist() if name.endswith(".npy")}
            (name,) = names.intersection({"log_mel.npy"}) or names
            array = array[name]
    except Exception as error:  # of many kinds, of damaged files
        raise ValueError("no array in NumPy's format, or several and none called log_mel; write it again") from error
    if array.dtype.kind != "f" or array.shape[1:] != (BINS,) or not len(array):
        raise ValueError(f"holds {array.dtype} {list(array.shape)}, expected floating point [frames, {BINS}]")
    return array


def windows(log_mel: np.ndarray) -> Iterator[np.ndarray]:
    """Windows a hop apart, and one that ends with the recording; normalised, and padded with the training's mean."""
    last = max(len(log_mel) - WINDOW, 0)
    for start in [*range(0, last, HOP), last]:
        with np.errstate(over="ignore"):  # infinite, which is said below
            window = np.asarray(log_mel[start : start + WINDOW], np.float32)
        if not np.isfinite(window).all():
            raise ValueError("holds NaN or infinite values")
        normalised = (window - np.float32(ABOUT["mean"])) / np.float32(2 * ABOUT["std"])
        yield np.pad(normalised, ((0, WINDOW - len(window)), (0, 0)))


def classify(session: onnxruntime.InferenceSession, path: str) -> np.ndarray:
    """Probabilities of the classes, `[classes]`: the mean over the windows of a file."""
    answers = [
        session.run(["probabilities"], {"log_mel": window[np.newaxis]})[0][0]  # [batch, frames, mel bins]
        for window in windows(read(path))
    ]
    mean = np.stack(answers).mean(axis=0, dtype=np.float64)
    if not np.isfinite(mean).all():
        raise ValueError("the model's answer is not a number; expected log-mels like those that it was trained on")
    return mean


def main(paths: list[str]) -> bool:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may be of any bytes
    session = onnxruntime.InferenceSession(HERE / "model.onnx", providers=["CPUExecutionProvider"])
    several, broken = ABOUT["multi_label"], 0  # labels to a clip
    for path in paths:
        try:
            probabilities = classify(session, path)
        except (OSError, ValueError, MemoryError) as error:
            print(f"{path}: {error}", file=sys.stderr)
            broken += 1
            continue
        for best in probabilities.argsort()[::-1][: None if several else ABOUT["top"]]:
            if not several or probabilities[best] >= ABOUT["threshold"]:
                print(f"{path}\t{ABOUT['labels'][best]}\t{probabilities[best]:.4f}")
    return broken > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
