"""Does an exported file say what the PyTorch model says?"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fastloaa.audio.logmel import as_numbers, as_samples
from fastloaa.backbones import backbone_of
from fastloaa.errors import ArgumentError, FastloaaError
from fastloaa.export.graph import answers as answers_of
from fastloaa.export.graph import plain_copy
from fastloaa.export.onnx_file import Metadata, open_session
from fastloaa.models import AST
from fastloaa.ops.autocast import without_autocast
from fastloaa.probabilities import to_probabilities

# (batch, length as a share of what fills the frames): a shorter and a longer clip, no batch of two as the exporter had.
CASES = ((1, 0.5), (3, 1.3))
ROWS = 4  # clips that PyTorch is given at once: a processor's cores are busy, and memory stays small
ERROR = 0.01  # most of the logits' power that their error may have where there are no recordings to judge by


class VerificationError(FastloaaError, RuntimeError):
    """An exported file answers differently from the PyTorch model."""


@dataclass(frozen=True)
class Report:
    """What was exported, and how it was checked.

    Args:
        size: of the file, in bytes.
        precision: of its weights and arithmetic.
        difference: largest absolute difference from PyTorch over the outputs: of all inputs for "fp32",
            of the recordings for the others, or of noise where there are none.
        agreement: share of the recordings of which file and PyTorch name the same class as the most probable, None
            without recordings.
        recordings: how many were compared.
        batches: batch sizes of noise that were compared.
        opset: version of the ONNX operators.
        onnxruntime: the oldest version of it that runs the file.
        seconds: wall time of the export, or of the check where nothing else was done.
    """

    size: int
    precision: str
    difference: float
    agreement: float | None
    recordings: int
    batches: tuple[int, ...]
    opset: int
    onnxruntime: str | None
    seconds: float


def verify(
    path: str | Path,
    model: nn.Module,
    clips: Iterable[Tensor] = (),
    tolerance: float = 1e-4,
    agreement: float = 0.99,
    progress: Callable[[str], object] | None = None,
) -> Report:
    """Run a file in onnxruntime on the CPU against its model: noise in several batch sizes and lengths, then `clips`.

    Of noise, an "fp32" file gives what PyTorch gives; so does one of another precision that has no recordings to show
    it on, in so far as the error is at most a hundredth of the logits' power.

    Args:
        path: a file that `to_onnx` wrote.
        model: what it was made from, before it was merged; left as it is.
        clips: recordings, [samples] each at the model's sample rate, see `as_recording`; images
            [channels, height, width] for timm's models.
        tolerance: largest absolute difference allowed in the outputs of an "fp32" file.
        agreement: least share of the clips of which the others must name the class that PyTorch names; 0 lets all pass.
        progress: called with a line on what is being done.

    Raises:
        VerificationError: a larger difference, less agreement, another shape, or numbers that are not finite.
        FileError: not a file that `to_onnx` wrote.
        MissingPackageError: onnxruntime is not installed.
    """
    start, say = time.perf_counter(), progress or (lambda _: None)
    session, metadata = open_session(path, ["CPUExecutionProvider"])
    reference, clips = plain_copy(model), [as_recording(model, clip) for clip in clips]
    exact = metadata.precision == "fp32"
    of_noise, of_clips, agreeing, errors, powers = [0.0], [0.0], [], [0.0], [0.0]
    say("comparing with PyTorch")
    judged = exact or not clips  # by noise
    inputs = noise(model, metadata)
    for x, wanted in _expected(reference, metadata, inputs) if judged else ((x, None) for x in inputs):
        say(f"comparing with PyTorch, a batch of {len(x)}")
        answers = _answers(session, metadata, x)
        if wanted is not None:
            of_noise.append(_difference(metadata, x, answers, wanted, tolerance if exact else np.inf))
            errors.append(float(np.square(answers[0] - wanted[0]).sum()))
            powers.append(float(np.square(wanted[0]).sum()))
        else:  # shapes, and that it runs
            _difference(metadata, x, answers, answers, np.inf)
    if not exact and agreement and sum(errors) > ERROR * sum(powers):
        raise VerificationError(
            f"the error of the {metadata.precision} file's logits has {sum(errors) / sum(powers):.1%} of their power "
            f"on noise, expected at most {ERROR:.0%}; give recordings to judge it by (calibration), take another "
            f"precision, or force it (force=True, --force)"
        )
    inputs = (as_input(reference, metadata, clip[None]) for clip in clips)
    for number, (x, wanted) in enumerate(_expected(reference, metadata, inputs)):
        say(f"comparing with PyTorch, recording {number + 1} of {len(clips)}")
        answers = _answers(session, metadata, x)
        of_clips.append(_difference(metadata, x, answers, wanted, tolerance if exact else np.inf))
        agreeing.append(bool(answers[0].argmax() == wanted[0].argmax()))
    share = sum(agreeing) / len(agreeing) if agreeing else None
    if share is not None and share < agreement and not exact:
        raise VerificationError(
            f"the {metadata.precision} file names the class that PyTorch names for {sum(agreeing)} of {len(agreeing)} "
            f"recordings, expected at least {agreement:.0%}; give more recordings of the kind it will hear, take "
            f"another precision, or force it (force=True, --force)"
        )
    return Report(
        size=Path(path).stat().st_size,
        precision=metadata.precision,
        difference=max(of_noise + of_clips) if exact or not clips else max(of_clips),
        agreement=share,
        recordings=len(agreeing),
        batches=tuple(batch for batch, _ in CASES),
        opset=metadata.opset,
        onnxruntime=metadata.onnxruntime,
        seconds=time.perf_counter() - start,
    )


def noise(model: nn.Module, metadata: Metadata) -> Iterator[Tensor]:
    """What the file reads, in several batch sizes."""
    generator = torch.Generator().manual_seed(0)
    for batch, share in CASES:
        if isinstance(model, AST):
            shape = model.front_end.clip_shape(int(share * model.front_end.samples))
            waveform = 0.1 * torch.randn(batch, *shape, generator=generator)
            yield as_input(model, metadata, waveform)
        else:
            yield torch.randn(batch, *backbone_of(model).image_size, generator=generator)


def as_recording(model: nn.Module, clip: Tensor) -> Tensor:
    """What a model is given of one recording, or image.

    Args:
        clip: samples, by `fastloaa.audio.logmel.as_samples`; a log-mel `[frames, mel_bins]` for models of stored
            spectrograms, floating point; an image `[channels, height, width]` of the model's size for timm's.

    Raises:
        ArgumentError: another.
    """
    if not isinstance(model, AST):
        image, size = as_numbers(clip, "an image [channels, height, width]"), list(backbone_of(model).image_size)
        if list(image.shape) != size:
            raise ArgumentError(f"the model sees images [channels, height, width] of {size}, got {list(image.shape)}")
        return image
    if model.front_end.reads == "log_mel":
        log_mel, bins = as_numbers(clip, "a log-mel [frames, mel_bins]"), model.front_end.mel_bins
        if log_mel.shape[1:] != (bins,) or not len(log_mel) or not log_mel.is_floating_point():
            raise ArgumentError(
                f"recordings are log-mels [frames, mel_bins={bins}] each, floating point, as the model was trained on; "
                f"got {log_mel.dtype} {list(log_mel.shape)}"
            )
        return log_mel
    samples = as_samples(clip)
    if samples.ndim != 1 or not len(samples):
        raise ArgumentError(
            f"recordings are [samples] each, with at least one; got shape {list(samples.shape)}: average channels, and "
            f"take the clips of a batch apart"
        )
    return samples


def as_input(model: nn.Module, metadata: Metadata, clips: Tensor) -> Tensor:
    """What the file reads of a batch of recordings (or images)."""
    clips = clips.cpu().float()
    return model.front_end(clips) if isinstance(model, AST) and metadata.input == "log_mel" else clips


Answers = tuple[NDArray[np.float32], ...]


def _expected(reference: nn.Module, metadata: Metadata, inputs: Iterable[Tensor]) -> Iterator[tuple[Tensor, Answers]]:
    """The inputs, each with PyTorch's outputs: of several in one pass, which takes less time."""
    waiting: list[Tensor] = []
    for x in inputs:
        if waiting and sum(map(len, (*waiting, x))) > ROWS:
            yield from zip(waiting, _in_one_pass(reference, metadata, waiting), strict=True)
            waiting = []
        waiting.append(x)
    if waiting:
        yield from zip(waiting, _in_one_pass(reference, metadata, waiting), strict=True)


@torch.no_grad()
def _in_one_pass(reference: nn.Module, metadata: Metadata, inputs: list[Tensor]) -> list[Answers]:
    """PyTorch's outputs for each of the inputs, which may be of several lengths where there is a front end."""
    if isinstance(reference, AST) and metadata.input == "waveform":
        inputs = [reference.front_end(x) for x in inputs]
    with without_autocast("cpu"):
        logits, embedding = answers_of(reference, torch.cat(inputs))
    outputs = (logits, to_probabilities(logits, metadata.probabilities), embedding)[: len(metadata.outputs)]
    rows = [output.numpy() for output in outputs]
    ends = np.cumsum([len(x) for x in inputs])
    return list(zip(*(np.split(array, ends[:-1]) for array in rows), strict=True))


def _answers(session: object, metadata: Metadata, x: Tensor) -> Answers:
    """onnxruntime's."""
    try:
        return tuple(session.run(list(metadata.outputs), {metadata.input: x.numpy()}))  # type: ignore[attr-defined]
    except Exception as error:  # onnxruntime's errors have no common base
        reason = " ".join(str(error).split())
        raise VerificationError(
            f"onnxruntime cannot run input {tuple(x.shape)} ({reason[:200]}); export the model again"
        ) from error


def _difference(metadata: Metadata, x: Tensor, answers: Answers, wanted: Answers, tolerance: float) -> float:
    """The largest, of which none may be above the tolerance."""
    largest = 0.0
    for name, got, want in zip(metadata.outputs, answers, wanted, strict=True):
        if got.shape != want.shape or len(got) != len(x):
            raise VerificationError(
                f"onnxruntime gives {name} of shape {got.shape}, PyTorch {want.shape} for input {tuple(x.shape)}; "
                f"export the model again"
            )
        difference = float(np.abs(got - want).max())
        if not difference <= tolerance or not np.isfinite(difference):
            raise VerificationError(
                f"onnxruntime differs from PyTorch by {difference:.2g} in the {name} for input {tuple(x.shape)}, "
                f"expected at most {tolerance:.2g}; export the model again, or raise the tolerance if that will do"
            )
        largest = max(largest, difference)
    return largest
