"""An exported file: what it says about itself, and how it is opened in onnxruntime."""

import json
import mmap
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from fastloaa.errors import ArgumentError
from fastloaa.export.precisions import check_precision
from fastloaa.extras import optional
from fastloaa.files import FileError, check_utf8
from fastloaa.inputs import check_path
from fastloaa.inputs.options import check_types
from fastloaa.probabilities import Probabilities, check_probabilities

TASK = "audio-classification"
Provider = str | tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Metadata:
    """All that using an exported file takes besides the file; stands in its `metadata_props`, a property each.

    Args:
        fastloaa: version of the library that wrote the file.
        task: what the outputs mean.
        input: "waveform" `[batch, samples]` at `sample_rate`, "log_mel" `[batch, frames, mel_bins]`, normalised, or
            "image" `[batch, channels, height, width]` for timm's models, whose files say nothing of a front end.
        precision: of weights and arithmetic, a name of `fastloaa.export.precisions.PRECISIONS`; input and outputs are
            float32 in all files.
        labels: names of the classes, their numbers where the model has no names.
        opset: version of the ONNX operators.
        onnxruntime: the oldest version of it that runs the file; None where a file does not say.
        tf32: whether NVIDIA GPUs may round what they multiply in float32 to TensorFloat-32's ten bits: not where the
            front end is in the graph, whose quiet bands drown beside a loud one then.
        embedding: how wide the output of that name is, what the head reads; None: there is none.
        front_end_kind: which front end it is, a name of `fastloaa.audio.FRONT_ENDS`.
        sample_rate, frames, mel_bins, mean, std: its settings.
        samples: how many samples of a waveform fill the frames: the window that the file hears of a longer one.
        shortest: how many samples fill an analysis window: the file's users refuse what is shorter, of which it sees
            nothing. None: an older file, which does not say.
        probabilities: what they are of the logits, by the loss of the training: "softmax", or "sigmoid".
        multi_label: a clip may have several of the labels, or none.
    """

    fastloaa: str
    task: str
    input: Literal["waveform", "log_mel", "image"]
    precision: str
    labels: tuple[str, ...]
    opset: int
    front_end_kind: str | None = None
    sample_rate: int | None = None
    frames: int | None = None
    mel_bins: int | None = None
    mean: float | None = None
    std: float | None = None
    samples: int | None = None
    shortest: int | None = None
    probabilities: Probabilities = "softmax"  # as files were that do not say
    multi_label: bool = False
    onnxruntime: str | None = None
    tf32: bool = False
    embedding: int | None = None

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the graph's outputs, in order."""
        return ("logits", "probabilities") if self.embedding is None else ("logits", "probabilities", "embedding")

    def front_end(self) -> dict[str, Any]:
        """`FRONT_ENDS[metadata.front_end_kind](**metadata.front_end())` is the model's front end.

        Raises:
            ArgumentError: a file of a timm model, which has none.
        """
        if self.input == "image":
            raise ArgumentError(
                "the file was made from a timm model and reads images; for sound, export a fastloaa.AST"
            )
        return {name: getattr(self, name) for name in ("sample_rate", "frames", "mel_bins", "mean", "std")}

    @property
    def window(self) -> float:
        """How much of a recording the file hears, in seconds from its start; 0 for images."""
        return (self.samples or 0) / (self.sample_rate or 1)

    def to_props(self) -> dict[str, str]:
        """Words as they are, everything else as JSON."""
        return {
            name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for name, value in asdict(self).items()
            if value is not None
        }

    @classmethod
    def from_props(cls, props: Mapping[str, str]) -> "Metadata":
        """The inverse of `to_props`.

        Raises:
            KeyError: properties are missing that `to_props` always writes.
            ArgumentError: one that it did not write so.
        """
        texts = {f.name: props[f.name] for f in fields(cls) if f.default is MISSING or f.name in props}
        values: dict[str, Any] = {name: text if name in _WORDS else _json(name, text) for name, text in texts.items()}
        metadata = cls(**values)
        check_types(metadata)
        check_precision(metadata.precision)
        check_probabilities(metadata.probabilities, metadata.multi_label)
        if metadata.input != "image":
            _check_front_end(metadata, texts)
        return metadata


def _check_front_end(metadata: Metadata, given: Collection[str]) -> None:
    """Settings that every front end has: KeyError for one that is left out, ValueError for one out of range."""
    for name in ("sample_rate", "frames", "mel_bins", "samples", "std", "mean"):
        if name not in given:
            raise KeyError(name)
    for name in ("sample_rate", "frames", "mel_bins", "samples"):
        if not (getattr(metadata, name) or 0) >= 1:
            raise ArgumentError(f"{name} is at least 1, got {getattr(metadata, name)}")
    if metadata.shortest is not None and not 1 <= metadata.shortest <= (metadata.samples or 0):
        raise ArgumentError(f"shortest is from 1 to samples, {metadata.samples}, got {metadata.shortest}")
    if metadata.mean is None or not (metadata.std or 0) > 0:
        raise ArgumentError(f"mean is a number and std above 0, got {metadata.mean} and {metadata.std}")


_WORDS = ("fastloaa", "task", "input", "precision", "front_end_kind", "probabilities", "onnxruntime")


def open_session(path: str | Path, providers: Sequence[Provider]) -> tuple[Any, Metadata]:
    """An `onnxruntime.InferenceSession` of a file that `to_onnx` wrote, and what the file says about itself.

    Raises:
        FileError: missing, not an ONNX file, not one of ours, one whose weights are in other files, or one whose
            metadata do not fit its graph.
        MissingPackageError: onnxruntime is not installed.
    """
    onnxruntime = optional("onnxruntime")
    check_path(path)
    path = Path(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no regular file" if path.exists() else "no such file"
        raise FileError(f"{path}: {found}; expected an ONNX file that `fastloaa export` wrote")
    check_utf8(path)
    if _has_weights_elsewhere(path):
        raise FileError(f"{path}: its weights are in other files; expected them inside, as `fastloaa export` writes")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; its warnings are about its own choices
    try:
        session = onnxruntime.InferenceSession(path, options, providers=list(providers))
    except Exception as error:  # onnxruntime has a dozen, with no common base, for a file that it cannot read
        reason = " ".join(str(error).split())
        raise FileError(f"{path}: onnxruntime cannot open it ({reason[:200]}); expected an ONNX file") from error
    try:
        metadata = Metadata.from_props(session.get_modelmeta().custom_metadata_map)
    except KeyError as error:
        raise FileError(
            f"{path}: an ONNX file without fastloaa's metadata; expected one that `fastloaa export` or to_onnx wrote"
        ) from error
    except ValueError as error:
        raise FileError(f"{path}: its metadata are damaged ({error}); export it again") from error
    given = [port.name for port in session.get_inputs()], [port.name for port in session.get_outputs()]
    classes = [len(metadata.labels)]
    widths = [port.shape[-1:] for port in session.get_outputs()][1:]
    expected = [classes, *([] if metadata.embedding is None else [[metadata.embedding]])]
    if given != ([metadata.input], list(metadata.outputs)) or widths != expected:
        raise FileError(
            f"{path}: its metadata say {metadata.input} to {len(metadata.labels)} classes, its graph says otherwise; "
            f"export it again"
        )
    return session, metadata


def restamp(path: Path, metadata: Metadata) -> None:
    """Write other metadata into an ONNX file."""
    onnx = optional("onnx")
    model = onnx.load(path)
    onnx.helper.set_model_props(model, metadata.to_props())
    onnx.save(model, path)


# Of TensorProto.external_data, the key that says where: its tag, a length of 8 however it is written, and the word.
_ELSEWHERE = re.compile(rb"\x0a(?:\x08|\x88\x80{0,8}\x00)location")


def _has_weights_elsewhere(path: Path) -> bool:
    """Whether the file names others to read weights from. onnxruntime before 1.25 opens those wherever they are."""
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _ELSEWHERE.search(content) is not None


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ArgumentError(f"{name} is not JSON: {text[:50]!r}") from error
