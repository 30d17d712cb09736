"""One ONNX file from waveform to probabilities."""

import time
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import replace
from io import StringIO
from pathlib import Path

import torch

import fastloaa
from fastloaa.export.graph import Inference
from fastloaa.export.onnx_file import TASK, Metadata, optional
from fastloaa.export.verify import Report, verify
from fastloaa.files import replacing
from fastloaa.models import AST

OPSET = 20  # the first with Gelu as an operator; 23, the first with Attention, is no faster in onnxruntime on CPUs


class ExportError(RuntimeError):
    """A model that cannot be written as an ONNX graph."""


def to_onnx(
    model: AST,
    path: str | Path,
    *,
    waveform: bool = True,
    labels: Sequence[str] | None = None,
    tolerance: float = 1e-4,
) -> Report:
    """Write a model as one ONNX file and check it in onnxruntime; a file that is there has been checked.

    Input `waveform`, float32 [batch, samples] between -1 and 1 at the model's sample rate, any batch and any number of
    samples >= 1: the front end is in the graph, and cuts or pads as in training. All samples of a row count: clips of
    different lengths do not belong in one batch. With waveform=False, input `log_mel`, float32
    [batch, frames, mel_bins], what `model.front_end` returns. Outputs `logits` and `probabilities` (their softmax),
    float32 [batch, classes]. Standard operators only, weights inside; labels and front end are in the file's metadata.

    Args:
        model: adapted or not, in any mode, precision and place; left as it is. The file is float32.
        path: where to write, by way of a temporary file beside it.
        waveform: with the front end, or without.
        labels: names of the classes; the model's own by default.
        tolerance: largest absolute difference from PyTorch allowed in logits and probabilities.

    Returns:
        How large the file is and how far its answers are from PyTorch's.

    Raises:
        TypeError: another kind of model.
        ValueError: another number of labels than classes.
        ExportError: the graph cannot be made.
        VerificationError: onnxruntime's answers differ from PyTorch's.
        MissingPackageError: the packages of `pip install 'fastloaa[onnx]'` are not there.
    """
    start = time.perf_counter()
    if not isinstance(model, AST):
        raise TypeError(f"to_onnx writes fastloaa.AST models, got {type(model).__name__}; use torch.onnx.export for it")
    metadata = _metadata(model, waveform, labels)
    onnx = optional("onnx")
    with replacing(path) as temporary:
        program = _translate(model, metadata)
        try:
            program.save(temporary, external_data=False)
            onnx.checker.check_model(temporary, full_check=True)
        except (ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise ExportError(f"the ONNX graph is not valid: {_first_line(error)}") from error
        del program  # it holds a copy of the weights
        report = verify(temporary, model, tolerance=tolerance)
    return replace(report, seconds=time.perf_counter() - start)


def _metadata(model: AST, waveform: bool, labels: Sequence[str] | None) -> Metadata:
    numbers = [str(number) for number in range(model.num_classes)]
    names = labels if labels is not None else model.labels or numbers
    if len(names) != model.num_classes:
        raise ValueError(
            f"{len(names)} labels were given for {model.num_classes} classes; give one name for each class"
        )
    return Metadata(
        fastloaa=fastloaa.__version__,
        task=TASK,
        input="waveform" if waveform else "log_mel",
        labels=tuple(names),
        samples=model.front_end.samples,
        opset=OPSET,
        **model.front_end.config(),
    )


def _translate(model: AST, metadata: Metadata) -> torch.onnx.ONNXProgram:
    """The graph with its metadata, in memory."""
    optional("onnxscript")
    # Conv2d: of the two backends the leaner graph. The shifted sums in place become chains of ScatterND.
    inference = Inference(model, metadata.input == "waveform", backend="reference")
    # A batch of one would make the batch a constant, whatever dynamic_shapes says.
    if metadata.input == "waveform":
        example, dynamic = torch.zeros(2, metadata.samples), {0: "batch", 1: "samples"}
    else:
        example, dynamic = torch.zeros(2, metadata.frames, metadata.mel_bins), {0: "batch"}
    try:
        # The exporter warns of its own workings, and prints the whole program when it fails.
        with warnings.catch_warnings(action="ignore"), redirect_stderr(StringIO()):
            program = torch.onnx.export(
                inference,
                (example,),
                input_names=[metadata.input],
                output_names=["logits", "probabilities"],
                dynamic_shapes=(dynamic,),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise ExportError(f"torch.onnx.export cannot translate the model: {_first_line(cause)}") from error
    assert program is not None
    others = {node.op_type for node in program.model.graph.all_nodes() if node.domain}
    if others:
        raise ExportError(f"operators that are not standard ONNX came out: {', '.join(sorted(others))}")
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces, with the paths of this machine
    program.model.metadata_props.update(metadata.to_props())
    return program


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
