"""One ONNX file from waveform to probabilities."""

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, cast

import torch
from packaging.version import Version
from torch import Tensor, nn

import fastloaa
from fastloaa.adapters.record import adapt_config
from fastloaa.backbones import TimmBackbone, backbone_of, find_backbone
from fastloaa.errors import ArgumentError, ArgumentTypeError
from fastloaa.export.contrib import fuse
from fastloaa.export.graph import Inference
from fastloaa.export.merging.merge import MergeError, merge
from fastloaa.export.onnx_file import TASK, Metadata, restamp
from fastloaa.export.operators import ExportError, check_operators, first_line, lower
from fastloaa.export.opsets import OPSETS, check_opset
from fastloaa.export.precisions import PRECISIONS, check_precision
from fastloaa.export.translate import one_at_a_time, translate
from fastloaa.export.verify import Report, as_input, as_recording, verify
from fastloaa.export.writing import take_weights, with_inputs, write_model
from fastloaa.extras import optional
from fastloaa.files import check_utf8, replacing
from fastloaa.inputs import class_names
from fastloaa.models import AST
from fastloaa.ops.autocast import without_autocast
from fastloaa.probabilities import Probabilities, check_probabilities, probabilities_of

TRACED = 18  # the lowest opset that torch.onnx.export writes
OLDEST_TORCH = "2.8"
"""The oldest whose exporter translates the front end with a length and a batch that vary."""


def to_onnx(
    model: nn.Module,
    path: str | Path,
    *,
    waveform: bool = True,
    merged: bool = True,
    precision: str = "fp32",
    opset: int | None = None,
    embedding: bool = False,
    labels: Sequence[str] | None = None,
    probabilities: Probabilities | None = None,
    multi_label: bool | None = None,
    calibration: Iterable[Tensor] | None = None,
    tolerance: float = 1e-4,
    force: bool = False,
    contrib: bool = False,
    progress: Callable[[str], object] | None = None,
) -> Report:
    """Write a model as one ONNX file and check it in onnxruntime; a file that is there has been checked.

    Input `waveform`, float32 [batch, samples] between -1 and 1 at the model's sample rate, any batch and any number of
    samples >= 1: the front end is in the graph, and cuts or pads as in training. All samples of a row count: clips of
    different lengths do not belong in one batch. With waveform=False, input `log_mel`, float32
    [batch, frames, mel_bins], what `model.front_end` returns. Outputs `logits` and `probabilities`, float32
    [batch, classes]. Standard operators only, weights inside; labels, front end and the oldest onnxruntime that runs it
    are in the file's metadata. Of the last block only the tokens that the head reads are computed.

    Args:
        model: adapted, merged or neither, in any mode, precision and place; left as it is. A timm VisionTransformer
            or Eva goes with waveform=False; its input is `image`, float32 [batch, channels, height, width].
        path: where to write, by way of a temporary file beside it.
        waveform: with the front end, or without.
        merged: dissolve adapters into the blocks' own weights, see `merge`; else they stand beside the blocks.
        precision: "fp32", or "fp16" (weights and arithmetic of the backbone), "int8" (products of its blocks, ranges
            found on recordings) or "int8-dynamic" (the same, ranges found anew for each token), or a name that was
            added to `PRECISIONS`.
        opset: version of the ONNX operators, 17, 18, 20, 21 or 23; None: `opsets.DEFAULT`. What is newer is written in
            older operators, in forms that runtimes fuse.
        embedding: a third output `embedding`, float32 [batch, dim], what the head reads.
        labels: names of the classes; the model's own by default.
        probabilities: "softmax", or "sigmoid" where each class stands for itself; the model's own by default, which is
            the loss's that it was trained with, and "softmax" for timm's models.
        multi_label: whether a clip may have several of the labels, or none; the model's own by default.
        calibration: recordings, [samples] each at the model's sample rate, floating-point or int16, numpy arrays too,
            of the kind that the file will hear; log-mels [frames, mel_bins] for models that were trained on such from
            files; images [channels, height, width] for timm's models. Each at least one analysis window long, since
            nobody answers for less. "int8" finds its ranges on them; every precision is compared with PyTorch on them,
            and "fp16" and "int8" need them for that.
        tolerance: largest absolute difference from PyTorch allowed in the outputs of "fp32".
        force: keep a file of another precision that names another class than PyTorch for more than 1% of the
            recordings.
        contrib: let onnxruntime fuse more, into its own com.microsoft operators, which no other runtime has.
        progress: called with a line on what is being done.

    Returns:
        How large the file is and how far its answers are from PyTorch's.

    Raises:
        ArgumentTypeError: another kind of model, or no path.
        ArgumentError: calibration that is no recordings or too short ones, labels that are not as many names as there
            are classes, an unknown precision or opset, no recordings for "fp16" or "int8", probabilities other than
            those, or a softmax with multi_label, waveform=True for a timm model, or contrib with another precision than
            "fp32".
        ExportError: the graph cannot be made, the adapters cannot be merged, or PyTorch is older than 2.8.
        VerificationError: onnxruntime's answers differ from PyTorch's.
        FileError: the path is not UTF-8.
        WriteError: the file cannot be written, or the folder for temporary files, which "int8" needs.
        MissingPackageError: the packages of `pip install 'fastloaa[onnx]'` are not there.

    Examples:
        >>> from fastloaa import AST, adapt
        >>> from fastloaa.export import to_onnx
        >>> model = AST(5, frames=64, backbone_options={"depth": 1, "embed_dim": 48, "num_heads": 3})
        >>> report = to_onnx(adapt(model, bottleneck=4), "model.onnx")
        >>> report.precision, report.difference < 1e-4
        ('fp32', True)
    """
    start, say = time.perf_counter(), progress or (lambda _: None)
    check_torch()
    check_utf8(path)
    opset = check_opset(opset)
    metadata = metadata_of(model, waveform, precision, labels, probabilities, multi_label, opset, embedding)
    clips = [as_recording(model, clip) for clip in (() if calibration is None else calibration)]
    check_precision(precision)
    wanted = PRECISIONS[precision]
    if wanted.recordings and not clips:
        raise ArgumentError(
            f"{precision} is checked on recordings; give some that it will hear (calibration, a folder)"
        )
    if contrib and precision != "fp32":
        raise ArgumentError(
            f"contrib goes with fp32; leave it out, onnxruntime fuses {precision} when it loads the file"
        )
    _check_lengths(model, clips)
    source = _merged(model) if merged else model
    with replacing(path) as temporary:
        plain = temporary.with_name(f"fp32-{temporary.name}"[-200:]) if wanted.convert else temporary
        say("translating the model")
        graph = Inference(
            source,
            waveform,
            half=wanted.half,
            probabilities=metadata.probabilities,
            opset=opset,
            embedding=embedding,
        )
        written = write_graph(graph, metadata, plain)
        if wanted.convert:
            check_operators(written, opset)
            say(f"{precision}, ranges of {len(clips)} recordings" if clips else precision)
            wanted.convert(plain, temporary, [as_input(model, metadata, clip[None]).numpy() for clip in clips])
        if contrib:
            fuse(temporary, backbone_of(source))
        say("checking the file")
        needed = check_operators(temporary if wanted.convert or contrib else written, opset, contrib)
        if needed != metadata.onnxruntime:
            restamp(temporary, replace(metadata, onnxruntime=needed))
        report = verify(temporary, model, clips, tolerance, 0.0 if force else 0.99, progress)
    return replace(report, seconds=time.perf_counter() - start)


def _check_lengths(model: nn.Module, clips: Sequence[Tensor]) -> None:
    """Raise ArgumentError for recordings of padding alone, on which ranges and agreement would say nothing."""
    for number, clip in enumerate(clips if isinstance(model, AST) else ()):
        if len(clip) < (shortest := cast(AST, model).front_end.shortest):
            raise ArgumentError(
                f"calibration has {len(clip)} samples in recording number {number}, and the model looks at {shortest} "
                f"and more; leave it out"
            )


def check_torch() -> None:
    """Raise ExportError where PyTorch is too old to write such graphs."""
    if Version(torch.__version__) < Version(OLDEST_TORCH):
        raise ExportError(
            f"exporting to ONNX needs torch {OLDEST_TORCH} or newer, this is {torch.__version__}; train with this one "
            f"and export with a newer: adapters, merged models and runs load there unchanged"
        )


def metadata_of(
    model: nn.Module,
    waveform: bool = True,
    precision: str = "fp32",
    labels: Sequence[str] | None = None,
    probabilities: Probabilities | None = None,
    multi_label: bool | None = None,
    opset: int | None = None,
    embedding: bool = False,
) -> Metadata:
    """What a file made from `model` says about itself; arguments and errors as of `to_onnx`."""
    if not isinstance(model, AST) and not isinstance(find_backbone(model), TimmBackbone):
        raise ArgumentTypeError(
            f"to_onnx writes fastloaa.AST models and timm's VisionTransformer and Eva, got {type(model).__name__}; for "
            f"transformers' AST see AST.from_transformers, for others torch.onnx.export"
        )
    if waveform and not isinstance(model, AST):
        raise ArgumentError("a timm model has no front end; give waveform=False, and feed the file images")
    if waveform and isinstance(model, AST) and model.front_end.reads == "log_mel":
        raise ArgumentError(
            "the model was trained on spectrograms from files and has no front end for waveforms; give waveform=False "
            "(--log-mel), and feed the file log-mels, normalised as model.front_end does it"
        )
    classes = cast(int, model.num_classes)
    numbers = [str(number) for number in range(classes)]
    names = labels if labels is not None else getattr(model, "labels", None) or numbers
    opset = check_opset(opset)
    kind = probabilities_of(model) if probabilities is None else probabilities
    several = kind == "sigmoid" and getattr(model, "multi_label", False) if multi_label is None else multi_label
    check_probabilities(kind, several)
    metadata = Metadata(
        fastloaa=fastloaa.__version__,
        task=TASK,
        input="image",
        precision=precision,
        labels=class_names(names, classes),
        opset=opset,
        onnxruntime=OPSETS[opset],
        tf32=not waveform,
        embedding=backbone_of(model).dim if embedding else None,
        probabilities=kind,
        multi_label=several,
    )
    if not isinstance(model, AST):
        return metadata
    return replace(
        metadata,
        input="waveform" if waveform else "log_mel",
        samples=model.front_end.samples,
        shortest=model.front_end.shortest,
        front_end_kind=model.front_end.kind,
        **model.front_end.config(),
    )


def _merged(model: nn.Module) -> nn.Module:
    if adapt_config(model) is None:
        return model
    try:
        return merge(model)
    except MergeError as error:
        raise ExportError(f"{error}; merged=False (--no-merge) exports them beside their blocks") from error


def write_graph(inference: Inference, metadata: Metadata, path: Path) -> Any:
    """Translate a module and write it with its metadata; nothing is checked.

    Returns:
        The graph without its weights, see `with_inputs`.

    Raises:
        ExportError: it cannot be translated.
        MissingPackageError: onnx or onnxscript is not installed.
    """
    optional("onnxscript")
    dynamic = {0: "batch", 1: "samples"} if metadata.input == "waveform" else {0: "batch"}
    try:
        # The exporter warns of its own workings, and prints the whole program when it fails.
        with one_at_a_time(), without_autocast("cpu"), warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            program = translate(
                inference,
                backbone_of(inference.model).blocks,
                (_example(inference.model, metadata),),
                input_names=[metadata.input],
                output_names=list(metadata.outputs),
                dynamic_shapes=(dynamic,),
                opset_version=max(metadata.opset, TRACED),
            )
    except torch.onnx.OnnxExporterError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise ExportError(f"torch.onnx.export cannot translate the model: {first_line(cause)}") from error
    lower(program.model, metadata.opset)
    program.model.metadata_props.update(metadata.to_props())
    weights = take_weights(program.model)
    graph = program.model_proto
    try:
        write_model(graph, weights, path)
    except ValueError as error:
        raise ExportError(f"the ONNX graph cannot be written: {first_line(error)}") from error
    return with_inputs(graph, [(name, int(each.dtype), each.shape.numpy()) for name, each in weights.items()])


def _example(model: nn.Module, metadata: Metadata) -> Tensor:
    """An input for the exporter: a batch of one would make the batch a constant, whatever dynamic_shapes says."""
    if not isinstance(model, AST):
        return torch.zeros(2, *backbone_of(model).image_size)
    waveform = torch.zeros(2, *model.front_end.clip_shape())
    return as_input(model, metadata, waveform)
