"""Does an exported file say what the PyTorch model says?"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastloaa.audio import FrontEnd
from fastloaa.export.graph import Inference
from fastloaa.export.onnx_file import Metadata, open_session
from fastloaa.models import AST

# (batch, length as a share of what fills the frames): shorter and longer clips, and batches that no example had.
CASES = ((1, 0.5), (2, 1.3), (3, 0.5), (17, 1.3))


class VerificationError(RuntimeError):
    """An exported file answers differently from the PyTorch model."""


@dataclass(frozen=True)
class Report:
    """What was exported, and how it was checked.

    Args:
        size: of the file, in bytes.
        difference: largest absolute difference from PyTorch over all logits and probabilities.
        batches: batch sizes that were compared.
        opset: version of the ONNX operators.
        seconds: wall time of the export, or of the check where nothing else was done.
    """

    size: int
    difference: float
    batches: tuple[int, ...]
    opset: int
    seconds: float


def verify(path: str | Path, model: AST, clips: Iterable[Tensor] = (), tolerance: float = 1e-4) -> Report:
    """Run a file in onnxruntime on the CPU against its model: noise in several batch sizes and lengths, then `clips`.

    Args:
        path: a file that `to_onnx` wrote.
        model: what it was made from; left as it is.
        clips: recordings to compare as well, float32 [samples] each at the model's sample rate.
        tolerance: largest absolute difference allowed in logits and probabilities.

    Raises:
        VerificationError: a larger difference, another shape, or numbers that are not finite.
        FileError: not a file that `to_onnx` wrote.
        MissingPackageError: onnxruntime is not installed.
    """
    start = time.perf_counter()
    session, metadata = open_session(path, ["CPUExecutionProvider"])
    expected = Inference(model, waveform=metadata.input == "waveform", backend="torch")
    batches, largest = [], 0.0
    for x in _inputs(expected.model.front_end, metadata, clips):
        try:
            answers = session.run(["logits", "probabilities"], {metadata.input: x.numpy()})
        except Exception as error:  # onnxruntime's errors have no common base
            reason = " ".join(str(error).split())
            raise VerificationError(
                f"onnxruntime cannot run input {tuple(x.shape)} ({reason[:200]}); export the model again"
            ) from error
        with torch.no_grad():
            wanted = [tensor.numpy() for tensor in expected(x)]
        for name, got, want in zip(("logits", "probabilities"), answers, wanted, strict=True):
            if got.shape != want.shape:
                raise VerificationError(
                    f"onnxruntime gives {name} of shape {got.shape}, PyTorch {want.shape} for input {tuple(x.shape)}; "
                    f"export the model again"
                )
            difference = float(np.abs(got - want).max())
            if not difference <= tolerance:  # in this form it catches NaN too
                raise VerificationError(
                    f"onnxruntime differs from PyTorch by {difference:.2g} in the {name} for input {tuple(x.shape)}, "
                    f"expected at most {tolerance:.2g}; export the model again, or raise the tolerance if that will do"
                )
            largest = max(largest, difference)
        batches.append(len(x))
    seconds = time.perf_counter() - start
    return Report(Path(path).stat().st_size, largest, tuple(batches), metadata.opset, seconds)


def _inputs(front_end: FrontEnd, metadata: Metadata, clips: Iterable[Tensor]) -> Iterator[Tensor]:
    """What the file reads: batches of noise, then each clip alone."""
    generator = torch.Generator().manual_seed(0)
    noise = (0.1 * torch.randn(batch, int(share * metadata.samples), generator=generator) for batch, share in CASES)
    for waveform in (*noise, *(clip.cpu()[None] for clip in clips)):
        yield waveform if metadata.input == "waveform" else front_end(waveform)
