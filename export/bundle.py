"""A folder with all that serving an exported file takes."""

import os
import re
import shutil
from pathlib import Path
from string import Template

from fastloaa.export import bundle_texts as texts
from fastloaa.export.classifier import THRESHOLD
from fastloaa.export.onnx_file import Metadata, open_session
from fastloaa.files import FileError, check_utf8, replacing

_LARGEST = "*std::max_element(probabilities, probabilities + labels.size())"  # in C++


def write_bundle(model: str | Path, folder: str | Path) -> None:
    """Put a file that `to_onnx` wrote into `folder` together with what serves it.

    `model.onnx`, `labels.txt`, a `README.md` with code in Python, C++ and for curl, that code, and `triton/`, a model
    repository for the onnxruntime backend of NVIDIA Triton Inference Server, with dynamic batching. The model's name
    there is the folder's. Files of those names are replaced, others left alone.

    Raises:
        FileError: not a file that `to_onnx` wrote, one that does not read waveforms, a label with a line break, or a
            path that is not UTF-8.
        MissingPackageError: onnxruntime is not installed.
    """
    check_utf8(folder)
    folder = Path(folder)
    _, metadata = open_session(model, ["CPUExecutionProvider"])
    if metadata.input != "waveform":
        raise FileError(f"{model}: reads {metadata.input}; servers want waveforms, export it with its front end")
    if any(len(label.splitlines()) > 1 for label in metadata.labels):
        raise FileError(f"{model}: a label holds a line break, so labels.txt cannot name it; export it with labels=")
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", folder.resolve().name)
    repository = folder / "triton" / name
    labels = "".join(f"{label}\n" for label in metadata.labels)
    if Path(model).resolve() != (folder / "model.onnx").resolve():
        with replacing(folder / "model.onnx") as temporary:
            shutil.copyfile(model, temporary)
    _link(folder / "model.onnx", repository / "1" / "model.onnx")
    for path, text in {
        folder / "labels.txt": labels,
        folder / "README.md": _fill(texts.README, name, metadata),
        folder / "classify.py": _fill(texts.PYTHON, name, metadata),
        folder / "classify.cpp": _fill(texts.CPP, name, metadata),
        repository / "labels.txt": labels,
        repository / "config.pbtxt": _fill(texts.TRITON, name, metadata),
    }.items():
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _fill(text: str, name: str, metadata: Metadata) -> str:
    values = {
        "name": name,
        "classes": len(metadata.labels),
        "rate": metadata.sample_rate,
        "window": metadata.samples,
        "seconds": f"{metadata.window:.2f}",
        "probabilities": metadata.probabilities,
        "threshold": THRESHOLD,
        "several": " A clip may have several labels, or none." if metadata.multi_label else "",
        "least": f"{THRESHOLD}f" if metadata.multi_label else _LARGEST,
        "version": metadata.fastloaa,
        "precision": metadata.precision,
        "needs": metadata.onnxruntime or "1.24",  # the last that files needed which do not say
    }
    code = {
        language: Template(snippet).substitute(values)
        for language, snippet in {"python": texts.PYTHON, "cpp": texts.CPP, "curl": texts.CURL}.items()
    }
    return Template(text).substitute(values | code)


def _link(source: Path, target: Path) -> None:
    """The same file under another name, a copy where the file system has no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
