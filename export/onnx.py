"""One ONNX file from waveform to probabilities."""

import time
import warnings
from ast import literal_eval
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import cast

import torch
from packaging.version import Version
from torch import Tensor, nn

import fastloaa
from fastloaa.adapters.record import adapt_config
from fastloaa.backbones import TimmBackbone, backbone_of, find_backbone
from fastloaa.errors import ArgumentError, ArgumentTypeError, FastloaaError
from fastloaa.export.contrib import fuse
from fastloaa.export.graph import Inference
from fastloaa.export.merging.merge import MergeError, merge
from fastloaa.export.onnx_file import TASK, Metadata, optional
from fastloaa.export.precisions import PRECISIONS, check_precision
from fastloaa.export.verify import Report, as_input, as_recording, verify
from fastloaa.files import check_utf8, replacing
from fastloaa.models import AST
from fastloaa.probabilities import Probabilities, check_probabilities, probabilities_of

OPSET = 23  # the first with Attention as an operator; Gelu came with 20


OLDEST_TORCH = "2.8"
"""The oldest whose exporter translates the front end with a length and a batch that vary."""


class ExportError(FastloaaError, RuntimeError):
    """A model that cannot be written as an ONNX graph."""


def to_onnx(
    model: nn.Module,
    path: str | Path,
    *,
    waveform: bool = True,
    merged: bool = True,
    precision: str = "fp32",
    labels: Sequence[str] | None = None,
    probabilities: Probabilities | None = None,
    multi_label: bool | None = None,
    calibration: Iterable[Tensor] | None = None,
    tolerance: float = 1e-4,
    force: bool = False,
    contrib: bool = False,
) -> Report:
    """Write a model as one ONNX file and check it in onnxruntime; a file that is there has been checked.

    Input `waveform`, float32 [batch, samples] between -1 and 1 at the model's sample rate, any batch and any number of
    samples >= 1: the front end is in the graph, and cuts or pads as in training. All samples of a row count: clips of
    different lengths do not belong in one batch. With waveform=False, input `log_mel`, float32
    [batch, frames, mel_bins], what `model.front_end` returns. Outputs `logits` and `probabilities`, float32
    [batch, classes]. Standard operators only, weights inside; labels and front end are in the file's metadata. Of the
    last block only the tokens that the head reads are computed.

    Args:
        model: adapted, merged or neither, in any mode, precision and place; left as it is. A timm VisionTransformer
            or Eva goes with waveform=False; its input is `image`, float32 [batch, channels, height, width].
        path: where to write, by way of a temporary file beside it.
        waveform: with the front end, or without.
        merged: dissolve adapters into the blocks' own weights, see `merge`; else they stand beside the blocks.
        precision: "fp32", or "fp16" (weights and arithmetic of the backbone) or "int8" (products of its blocks), or a
            name that was added to `PRECISIONS`.
        labels: names of the classes; the model's own by default.
        probabilities: "softmax", or "sigmoid" where each class stands for itself; the model's own by default, which is
            the loss's that it was trained with, and "softmax" for timm's models.
        multi_label: whether a clip may have several of the labels, or none; the model's own by default.
        calibration: recordings, [samples] each at the model's sample rate, floating-point or int16, numpy arrays too,
            of the kind that the file will hear; images [channels, height, width] for timm's models. "int8" finds its
            ranges on them; every precision is compared with PyTorch on them, and "fp16" and "int8" need them for that.
        tolerance: largest absolute difference from PyTorch allowed in logits and probabilities of "fp32".
        force: keep an "fp16" or "int8" file that names another class than PyTorch for more than 1% of the recordings.
        contrib: let onnxruntime fuse more, into its own com.microsoft operators, which no other runtime has.

    Returns:
        How large the file is and how far its answers are from PyTorch's.

    Raises:
        ArgumentTypeError: another kind of model, or no path.
        ArgumentError: calibration that is no recordings, labels that are not as many names as there are classes, an
            unknown precision, no recordings for "fp16" or "int8", probabilities other than those, or a softmax with
            multi_label, waveform=True for a timm model, or contrib with another precision than "fp32".
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
    start = time.perf_counter()
    check_torch()
    check_utf8(path)
    clips = [as_recording(model, clip) for clip in (() if calibration is None else calibration)]
    metadata = metadata_of(model, waveform, precision, labels, probabilities, multi_label)
    check_precision(precision)
    if precision != "fp32" and not clips:
        raise ArgumentError(
            f"{precision} is checked on recordings; give some that it will hear (calibration, a folder)"
        )
    if contrib and precision != "fp32":
        raise ArgumentError(
            f"contrib goes with fp32; leave it out, onnxruntime fuses {precision} when it loads the file"
        )
    source, wanted = _merged(model) if merged else model, PRECISIONS[precision]
    with replacing(path) as temporary:
        plain = temporary.with_name(f"fp32-{temporary.name}"[-200:]) if wanted.convert else temporary
        graph = Inference(source, waveform, half=wanted.half, probabilities=metadata.probabilities)
        write_graph(graph, metadata, plain)
        if wanted.convert:
            wanted.convert(plain, temporary, [as_input(model, metadata, clip[None]).numpy() for clip in clips])
        if contrib:
            fuse(temporary, backbone_of(source))
        _check(temporary, contrib)
        report = verify(temporary, model, clips, tolerance, agreement=0.0 if force else 0.99)
    return replace(report, seconds=time.perf_counter() - start)


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
) -> Metadata:
    """What a file made from `model` says about itself; arguments and errors as of `to_onnx`."""
    if not isinstance(model, AST) and not isinstance(find_backbone(model), TimmBackbone):
        raise ArgumentTypeError(
            f"to_onnx writes fastloaa.AST models and timm's VisionTransformer and Eva, got {type(model).__name__}; for "
            f"transformers' AST see AST.from_transformers, for others torch.onnx.export"
        )
    if waveform and not isinstance(model, AST):
        raise ArgumentError("a timm model has no front end; give waveform=False, and feed the file images")
    if isinstance(labels, str):
        raise ArgumentError(f"labels are the names of the classes, a list; got {labels!r}")
    classes = cast(int, model.num_classes)
    numbers = [str(number) for number in range(classes)]
    names = labels if labels is not None else getattr(model, "labels", None) or numbers
    if len(names) != classes:
        raise ArgumentError(f"{len(names)} labels were given for {classes} classes; give one name for each class")
    kind = probabilities_of(model) if probabilities is None else probabilities
    several = kind == "sigmoid" and getattr(model, "multi_label", False) if multi_label is None else multi_label
    check_probabilities(kind, several)
    metadata = Metadata(
        fastloaa=fastloaa.__version__,
        task=TASK,
        input="image",
        precision=precision,
        labels=tuple(map(str, names)),
        opset=OPSET,
        probabilities=kind,
        multi_label=several,
    )
    if not isinstance(model, AST):
        return metadata
    return replace(
        metadata,
        input="waveform" if waveform else "log_mel",
        samples=model.front_end.samples,
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


def write_graph(inference: Inference, metadata: Metadata, path: Path) -> None:
    """Translate a module and write it with its metadata; nothing is checked.

    Raises:
        ExportError: it cannot be translated.
        MissingPackageError: onnx or onnxscript is not installed.
    """
    optional("onnxscript")
    dynamic = {0: "batch", 1: "samples"} if metadata.input == "waveform" else {0: "batch"}
    try:
        # The exporter warns of its own workings, and prints the whole program when it fails.
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                inference,
                (_example(inference.model, metadata),),
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
    for node in program.model.graph.all_nodes():
        scopes = literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
        if len(scopes) > 1:
            node.name = f"{scopes[-2]}/{node.name}"  # e.g. model.backbone.blocks.0.mlp.fc1/...
        node.metadata_props.clear()  # stack traces, with the paths of this machine
    program.model.metadata_props.update(metadata.to_props())
    try:
        program.save(path, external_data=False)
    except ValueError as error:
        raise ExportError(f"the ONNX graph cannot be written: {_first_line(error)}") from error


def _example(model: nn.Module, metadata: Metadata) -> Tensor:
    """An input for the exporter: a batch of one would make the batch a constant, whatever dynamic_shapes says."""
    if not isinstance(model, AST):
        return torch.zeros(2, *backbone_of(model).image_size)
    waveform = torch.zeros(2, model.front_end.samples)
    return as_input(model, metadata, waveform)


def _check(path: Path, contrib: bool) -> None:
    """Is it valid ONNX, and of standard operators?"""
    onnx = optional("onnx")
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the ONNX graph is not valid: {_first_line(error)}") from error
    foreign = {opset.domain for opset in onnx.load(path).opset_import} - {"", "ai.onnx"}
    if foreign - ({"com.microsoft"} if contrib else set()):
        raise ExportError(f"operators that are not standard ONNX came out, of {', '.join(sorted(foreign))}")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
