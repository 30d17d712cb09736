"""From sound files to labels by an exported file."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastloaa.audio import FRONT_ENDS, AudioError, FrontEnd, load_beginning
from fastloaa.audio.logmel import as_waveform
from fastloaa.errors import ArgumentError, ArgumentTypeError
from fastloaa.export.onnx_file import Provider, open_session, optional
from fastloaa.files import FileError
from fastloaa.inputs import check_path, whole

# TF32 keeps ten bits, in which a quiet band drowns beside a loud one, and answers would not be those that were checked.
_PREFERRED: tuple[Provider, ...] = (("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider")
TOP = 3  # classes that are named where one is right
THRESHOLD = 0.5  # least probability of those that are named where several may be


@dataclass(frozen=True)
class Prediction:
    """The answer for one file.

    Args:
        path: the file.
        labels: the classes that are named, best first; none for a file that could not be read, and where none is
            probable enough.
        probabilities: theirs.
        seconds: length of the file.
        heard: how much of that the model hears, from the start on.
        error: why the file could not be read, one line, else None.
    """

    path: Path
    labels: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    seconds: float | None = None
    heard: float | None = None
    error: str | None = None


class Classifier:
    """A file that `to_onnx` wrote, in onnxruntime; no code of the model is needed.

    Args:
        path: the ONNX file.
        providers: onnxruntime's execution providers, in order of preference; None: CUDA where this build of
            onnxruntime has it, else the CPU.

    Attributes:
        metadata: what the file says about itself, a `Metadata` (labels, sample_rate, ...).

    Raises:
        FileError: missing, not an ONNX file, not one that `to_onnx` wrote, or one that reads images.
        MissingPackageError: onnxruntime is not installed.
    """

    def __init__(self, path: str | Path, providers: Sequence[Provider] | None = None) -> None:
        if providers is None:
            available = optional("onnxruntime").get_available_providers()
            providers = [p for p in _PREFERRED if (p if isinstance(p, str) else p[0]) in available]
        self._session, self.metadata = open_session(path, providers)
        try:
            config = self.metadata.front_end()
            kind = self.metadata.front_end_kind or FrontEnd.kind
            if kind not in FRONT_ENDS:
                raise ArgumentError(
                    f"made for the front end {kind!r}, expected {' or '.join(FRONT_ENDS)}; export it again"
                )
            self._front_end = FRONT_ENDS[kind](**config) if self.metadata.input == "log_mel" else None
        except ValueError as error:
            raise FileError(f"{path}: {error}") from error
        self._sample_rate: int = config["sample_rate"]
        assert self.metadata.samples is not None  # only files that read images do without
        self._samples = self.metadata.samples

    def probabilities(self, waveform: Tensor) -> NDArray[np.float32]:
        """Waveforms of equal length, [batch, samples] at `metadata.sample_rate` -> float32 [batch, classes].

        Args:
            waveform: floating-point or int16, numpy arrays too.

        Raises:
            ArgumentError: another shape or dtype.
        """
        x = as_waveform(waveform) if self._front_end is None else self._front_end(waveform)
        return self._session.run(["probabilities"], {self.metadata.input: x.numpy(force=True).astype(np.float32)})[0]

    def classify(
        self,
        paths: str | PathLike[str] | Iterable[str | PathLike[str]],
        batch_size: int = 8,
        top: int | None = None,
        threshold: float | None = None,
    ) -> Iterator[Prediction]:
        """Decode and classify sound files as they come; a broken file becomes a `Prediction` with an error.

        Files that follow each other and have the same length share a batch, as do those that are longer than what the
        model hears. Others do not: a clip's mean is taken over all of its row, so zeros behind it would change its
        answer.

        Without `top` and `threshold` the three most probable classes are named, and where a clip may have several
        labels (`metadata.multi_label`), all that have at least `THRESHOLD`.

        Args:
            paths: whatever `fastloaa.audio.load_audio` decodes, any rate and length; a single one too.
            batch_size: most clips in one run.
            top: most classes to name, at most all.
            threshold: least probability of a class that is named, from 0 to 1.

        Yields:
            One prediction for each path, in the order of the paths.

        Raises:
            ArgumentError: batch_size or top below 1, a threshold outside 0 to 1.
            ArgumentTypeError: no paths.
        """
        if self._front_end is not None and self._front_end.reads == "log_mel":
            raise ArgumentError(
                "the model was trained on spectrograms from files and cannot read sounds; probabilities(log_mel) takes "
                "[batch, frames, mel_bins] of the same kind"
            )
        batch_size, top = whole("batch_size", batch_size), None if top is None else whole("top", top)
        if isinstance(paths, str | PathLike):
            paths = [paths]
        if not isinstance(paths, Iterable) or hasattr(paths, "shape"):
            raise ArgumentTypeError(
                f"expected the paths of sound files, got {type(paths).__name__}; probabilities(waveform) takes samples"
            )
        if threshold is not None and not (isinstance(threshold, Real) and 0 <= threshold <= 1):
            raise ArgumentError(f"threshold is a probability, from 0 to 1, got {threshold}")
        if top is None and threshold is None:
            top, threshold = (None, THRESHOLD) if self.metadata.multi_label else (TOP, None)
        return self._stream(paths, batch_size, top, threshold or 0.0)

    def _stream(
        self, paths: Iterable[str | PathLike[str]], batch_size: int, top: int | None, threshold: float
    ) -> Iterator[Prediction]:
        batch: list[tuple[Path, Tensor, float]] = []
        for given in paths:
            check_path(given)
            path = Path(given)
            try:
                waveform, seconds = load_beginning(path, self._sample_rate, self._samples)
            except (AudioError, OSError) as error:
                yield from self._answer(batch, top, threshold)
                batch = []
                yield Prediction(path, error=str(error))
                continue
            if batch and (len(batch) == batch_size or len(batch[0][1]) != len(waveform)):
                yield from self._answer(batch, top, threshold)
                batch = []
            batch.append((path, waveform, seconds))
        yield from self._answer(batch, top, threshold)

    def _answer(
        self, batch: list[tuple[Path, Tensor, float]], top: int | None, threshold: float
    ) -> Iterator[Prediction]:
        if not batch:
            return
        waveform = torch.stack([clip for _, clip, _ in batch])
        for (path, _, seconds), row in zip(batch, self.probabilities(waveform), strict=True):
            best = [index for index in row.argsort()[::-1][:top] if row[index] >= threshold]
            yield Prediction(
                path,
                tuple(self.metadata.labels[i] for i in best),
                tuple(float(row[i]) for i in best),
                seconds,
                min(seconds, self.metadata.window),
            )
