"""From sound files to labels by an exported file."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastloaa.audio.logmel import as_waveform
from fastloaa.errors import ArgumentError, ArgumentTypeError
from fastloaa.export.hearing import Hearing, file_of, front_end_of, refused
from fastloaa.export.listening import Part, Piece, ahead, answered, parts
from fastloaa.export.onnx_file import Provider, open_session
from fastloaa.export.windows import Pool, Pooled, Window, hop_samples
from fastloaa.extras import optional
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
        heard: how much of that is in windows that the model heard: all, unless their hop is longer than they are.
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

    Recordings are sounds. A file of a model that was trained on spectrograms from files hears those instead: `.npy` and
    `.npz` files as of `fastloaa.audio.load_log_mel`, arrays `[frames, mel_bins]` where samples are asked for, none of
    them normalised. Their seconds count `metadata.sample_rate` frames each: 100, as in training, unless the model was
    built with another.

    A recording that is shorter than one analysis window (25 ms of AST's front end) is refused: there is nothing in it
    that the model sees.

    Args:
        path: the ONNX file.
        providers: onnxruntime's execution providers, in order of preference; None: CUDA where this build of
            onnxruntime has it, else the CPU.

    Attributes:
        metadata: what the file says about itself, a `Metadata` (labels, sample_rate, ...).
        hearing: what it hears of a recording, a `fastloaa.export.hearing.Hearing`.

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
            self.hearing = Hearing.of(self.metadata)
            self._front_end = front_end_of(self.metadata) if self.metadata.input == "log_mel" else None
        except ValueError as error:
            raise FileError(f"{path}: {error}") from error

    def probabilities(self, waveform: Tensor) -> NDArray[np.float32]:
        """Waveforms of equal length, [batch, samples] at `metadata.sample_rate` -> float32 [batch, classes].

        Args:
            waveform: floating-point or int16, numpy arrays too; of spectrograms [batch, frames, mel_bins].

        Raises:
            ArgumentError: another shape or dtype, or clips that are shorter than one analysis window.
        """
        if self.hearing.mel_bins is None:
            waveform = as_waveform(waveform)
        x = waveform if self._front_end is None else self._front_end(waveform)
        if too_short := self.hearing.too_short(np.shape(waveform)[1]):
            raise ArgumentError(too_short)
        return self._session.run(["probabilities"], {self.metadata.input: x.numpy(force=True).astype(np.float32)})[0]

    def classify(
        self,
        paths: str | PathLike[str] | Iterable[str | PathLike[str]],
        batch_size: int = 8,
        top: int | None = None,
        threshold: float | None = None,
        *,
        hop: float | None = None,
        pool: Pool = "mean",
        workers: int = 0,
    ) -> Iterator[Prediction]:
        """Decode and classify sound files as they come; a broken file becomes a `Prediction` with an error.

        All of a recording is heard, window after window of what the model was trained on, in memory that does not grow
        with its length; `fastloaa.export.windows` says which. Windows share a batch, those of several files too, and
        so do neighbours of the same length that are shorter. Others do not: a clip's mean is taken over all of its
        row, so zeros behind it would change its answer.

        Without `top` and `threshold` the three most probable classes are named, and where a clip may have several
        labels (`metadata.multi_label`), all that have at least `THRESHOLD`.

        Args:
            paths: whatever `fastloaa.audio.load_audio` decodes, any rate and length from one analysis window on; a
                single one too.
            batch_size: most windows in one run.
            top: most classes to name, at most all.
            threshold: least probability of a class that is named, from 0 to 1.
            hop: seconds from window to window; None: half a window.
            pool: the answer for a file is, for each class, the "mean" of its probabilities in all windows, or their
                "max".
            workers: threads that decode what comes next, up to twice as many files; 0: files are read as they are
                asked for.

        Yields:
            One prediction for each path, in the order of the paths.

        Raises:
            ArgumentError: batch_size or top below 1, a threshold outside 0 to 1, a hop that is not above 0, another
                pool, workers below 0.
            ArgumentTypeError: no paths.
        """
        batch_size, workers = whole("batch_size", batch_size), whole("workers", workers, 0)
        name = self._naming(top, threshold)
        if isinstance(paths, str | PathLike):
            paths = [paths]
        if not isinstance(paths, Iterable) or hasattr(paths, "shape"):
            raise ArgumentTypeError(
                f"expected the paths of sound files, got {type(paths).__name__}; probabilities(waveform) and "
                f"timeline(samples) take samples"
            )
        step, pooled = hop_samples(hop, self.hearing.window, self.hearing.rate), Pooled(pool)

        def open_parts(path: Path) -> Generator[Part, None, None]:
            return parts(path, self.hearing, step)

        found = ahead(map(_path, paths), open_parts, workers, batch_size)
        return self._predictions(answered(found, self.probabilities, batch_size), pooled, name)

    def timeline(
        self,
        sound: str | PathLike[str] | ArrayLike | Tensor | Iterable[ArrayLike | Tensor],
        hop: float | None = None,
        batch_size: int | None = None,
    ) -> Iterator[Window]:
        """What is heard when: the windows of a recording of any length, as they are answered.

        `fastloaa.export.windows` says which windows; a recording that is no longer than one has one.

        Args:
            sound: the path of a sound file, as of `classify`; samples, `[samples]` at `metadata.sample_rate`, floating
                point between -1 and 1 or int16; or blocks of such samples that follow each other, from a microphone,
                say, or a `fastloaa.audio.AudioStream`.
            hop: seconds from window to window; None: half a window.
            batch_size: most windows in one run; None: 8, and 1 of blocks, so that each window is answered as soon as
                its samples are there.

        Yields:
            The windows, by their start.

        Raises:
            AudioError: the file cannot be read, or only to some place, is shorter than one analysis window, or has
                samples so large that the answer is NaN, when reading gets there.
            ArgumentError: no samples or fewer than that, or some that are not finite or as large, when they come;
                batch_size below 1, or a hop that is not above 0.
        """
        step = hop_samples(hop, self.hearing.window, self.hearing.rate)
        given = batch_size if batch_size is None else whole("batch_size", batch_size)
        blocks: Iterable[Any]
        if isinstance(sound, str | PathLike):
            blocks, default = self.hearing.open(Path(sound)), 8
        elif hasattr(sound, "shape"):
            blocks, default = [sound], 8
        elif isinstance(sound, Iterable):
            blocks, default = sound, 1
        else:
            raise ArgumentTypeError(
                f"expected the path of a sound file, samples or blocks of samples; got {type(sound).__name__}"
            )
        return self._windows(blocks, step, given or default)

    def named(
        self, probabilities: NDArray[np.floating[Any]], top: int | None = None, threshold: float | None = None
    ) -> list[tuple[str, float]]:
        """The classes that `classify` names, best first, each with its probability.

        Args:
            probabilities: of a window or a clip, `[classes]`.
            top, threshold: as of `classify`.

        Raises:
            ArgumentError: top below 1, or a threshold outside 0 to 1.
        """
        return self._naming(top, threshold)(probabilities)

    def _naming(
        self, top: int | None, threshold: float | None
    ) -> Callable[[NDArray[np.floating[Any]]], list[tuple[str, float]]]:
        """`named` of checked arguments."""
        most = None if top is None else whole("top", top)
        if threshold is not None and not (isinstance(threshold, Real) and 0 <= threshold <= 1):
            raise ArgumentError(f"threshold is a probability, from 0 to 1, got {threshold}")
        least = threshold or 0.0
        if most is None and threshold is None:
            most, least = (None, THRESHOLD) if self.metadata.multi_label else (TOP, 0.0)

        def name(row: NDArray[np.floating[Any]]) -> list[tuple[str, float]]:
            best = [index for index in row.argsort()[::-1][:most] if row[index] >= least]
            return [(self.metadata.labels[index], float(row[index])) for index in best]

        return name

    def _predictions(
        self,
        found: Iterable[Part],
        pooled: Pooled,
        name: Callable[[NDArray[np.floating[Any]]], list[tuple[str, float]]],
    ) -> Iterator[Prediction]:
        for part in found:
            if isinstance(part, Piece):
                pooled.add(part.answer)
                continue
            row = pooled.result()
            if part.error is not None:
                yield Prediction(part.path, error=part.error)
            elif row is not None and not np.isfinite(row).all():
                yield Prediction(part.path, error=f"{part.path}: {self.hearing.not_a_number}")
            elif row is not None:
                named = name(row)
                yield Prediction(
                    part.path,
                    tuple(label for label, _ in named),
                    tuple(probability for _, probability in named),
                    part.seconds,
                    part.heard,
                )

    def _windows(self, blocks: Iterable[Any], hop: int, batch_size: int) -> Iterator[Window]:
        cut = self.hearing.windows(blocks, hop)
        for part in answered((Piece(*each) for each in cut), self.probabilities, batch_size):
            if isinstance(part, Piece):
                start, end = (at / self.hearing.rate for at in (part.start, part.start + len(part.waveform)))
                if not np.isfinite(part.answer).all():
                    place = f"sample number {part.start}" if file_of(blocks) is None else f"{start:g} s"
                    raise refused(blocks, f"from {place} on {self.hearing.not_a_number}")
                yield Window(start, end, part.answer)


def _path(given: str | PathLike[str]) -> Path:
    check_path(given)
    return Path(given)
