"""A folder with all that serving an exported file takes."""

import re
import shutil
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from fastloaa.errors import ArgumentError
from fastloaa.export.bundle.browser import ONNXRUNTIME_WEB, put_onnxruntime_web
from fastloaa.export.bundle.servers import first_release
from fastloaa.export.classifier import THRESHOLD, TOP, Classifier
from fastloaa.export.hearing import Hearing
from fastloaa.export.onnx_file import Metadata
from fastloaa.export.windows import hop_samples
from fastloaa.files import FileError, check_utf8, replacing, write_json

FILES = files("fastloaa.export.bundle") / "bundle-files"
_AS_THEY_ARE = ("classify.py", "classify.cpp", "CMakeLists.txt", "classify.mjs", "ask.sh")
# ONNX Runtime's TF32 keeps ten bits, in which a quiet band drowns beside a loud one.
_WITHOUT_TF32 = """
# On a GPU: TF32 keeps ten bits of a product, and answers would not be those that were checked.
optimization { execution_accelerators {
  gpu_execution_accelerator [ { name: "cuda" parameters { key: "use_tf32" value: "0" } } ]
} }"""


def write_bundle(model: str | Path, folder: str | Path, onnxruntime_web: str | Path | None = None) -> None:
    """Put a file that `to_onnx` wrote into `folder` together with what serves it.

    `model.onnx`, `model.json` (what clients need to know of it), `labels.txt`, a `README.md`, clients in Python, C++,
    JavaScript and for curl, `web/`, a page that listens in a browser, and two model repositories for NVIDIA Triton
    Inference Server, `triton/` for its onnxruntime backend and `triton-python/` for its Python backend, both with
    dynamic batching. The model's name there is the folder's. The weights are there once: the repositories refer to
    `model.onnx`. Files of those names are replaced, others left alone.

    Of a model that was trained on spectrograms from files there are the first four and a client in Python: all else
    hears sounds.

    Args:
        model: the ONNX file.
        folder: the bundle.
        onnxruntime_web: the archive that `npm pack onnxruntime-web@VERSION` makes, of the version
            `fastloaa.export.bundle.browser.ONNXRUNTIME_WEB`, or "npm" to have npm fetch it. The page needs it; None
            leaves it out, and the page and the README say how to add it.

    Raises:
        FileError: not a file that `to_onnx` wrote, one that reads images, or features that the model's front end makes
            of sounds, a label with a line break, a path that is not UTF-8, or another archive.
        ArgumentError: onnxruntime-web for a model that reads spectrograms from files.
        MissingPackageError: onnxruntime is not installed, or npm is not where it was asked for.
    """
    check_utf8(folder)
    folder = Path(folder)
    classifier = Classifier(model, ["CPUExecutionProvider"])
    metadata, hearing = classifier.metadata, classifier.hearing
    stored = hearing.mel_bins is not None
    if metadata.input != "waveform" and not stored:
        raise FileError(f"{model}: reads {metadata.input}; servers want waveforms, export it with its front end")
    if stored and onnxruntime_web is not None:
        raise ArgumentError(f"{model}: reads log-mels, and a page hears sounds; leave onnxruntime-web out")
    if any(len(f"{label}.".splitlines()) > 1 for label in metadata.labels):  # at its end too
        raise FileError(f"{model}: a label holds a line break, so labels.txt cannot name it; export it with labels=")
    about = _about(re.sub(r"[^A-Za-z0-9_.-]+", "_", folder.resolve().name), metadata, hearing)
    if Path(model).resolve() != (folder / "model.onnx").resolve():
        with replacing(folder / "model.onnx") as temporary:
            shutil.copyfile(model, temporary)
    if onnxruntime_web is not None:
        put_onnxruntime_web(onnxruntime_web, folder / "web" / "onnxruntime")
    labels = "".join(f"{label}\n" for label in metadata.labels)
    write_json(folder / "model.json", about)
    _write(folder / "labels.txt", labels)
    if stored:
        _write(folder / "classify.py", _text("log-mels/classify.py"))
        _write(folder / "README.md", _readme("log-mels/", about, metadata))
        return
    for name in _AS_THEY_ARE:
        _write(folder / name, _text(name))
    (folder / "ask.sh").chmod(0o755)
    for page in (FILES / "web").iterdir():
        _write(folder / "web" / page.name, page.read_text(encoding="utf-8"))
    for backend, repository in (("onnxruntime", "triton"), ("python", "triton-python")):
        served = folder / repository / about["name"]
        _write(served / "labels.txt", labels)
        _write(served / "config.pbtxt", _config(about["name"], backend, metadata))
    _link(folder / "triton" / about["name"] / "1" / "model.onnx", Path("../../../model.onnx"))
    _write(folder / "triton-python" / about["name"] / "1" / "model.py", _text("triton/model.py"))
    _write(folder / "README.md", _readme("", about, metadata))


def _about(name: str, metadata: Metadata, hearing: Hearing) -> dict[str, Any]:
    """What clients need to know, for those that cannot read an ONNX file's metadata (JavaScript), or need not."""
    normalisation = {each: getattr(metadata, each) for each in ("mel_bins", "mean", "std")}
    return {
        "name": name,
        "input": metadata.input,
        "labels": list(metadata.labels),
        "sample_rate": hearing.rate,
        "window": hearing.window,
        "hop": hop_samples(None, hearing.window, hearing.rate),
        "shortest": hearing.shortest,
        **(normalisation if metadata.input == "log_mel" else {}),
        "probabilities": metadata.probabilities,
        "multi_label": metadata.multi_label,
        "threshold": THRESHOLD,
        "top": TOP,
        "precision": metadata.precision,
        "fastloaa": metadata.fastloaa,
    }


def _config(name: str, backend: str, metadata: Metadata) -> str:
    classes = len(metadata.labels)
    sizes = {"logits": classes, "probabilities": classes, "embedding": metadata.embedding}
    named = [
        f'  {{ name: "{output}" data_type: TYPE_FP32 dims: [ {sizes[output]} ]'
        + (' label_filename: "labels.txt" }' if output == "probabilities" else " }")
        for output in metadata.outputs
    ]
    return Template(_text("triton/config.pbtxt")).substitute(
        name=name,
        backend=backend,
        outputs=",\n".join(named),
        accelerators=_WITHOUT_TF32 if backend == "onnxruntime" else "",
    )


def _readme(of: str, about: dict[str, Any], metadata: Metadata) -> str:
    """Of those of sounds, "", or of "log-mels/"."""
    needs = metadata.onnxruntime or "1.24"  # the last that files needed which do not say
    release = first_release(needs)
    return Template(_text(f"{of}README.md")).substitute(
        about,
        classes=len(metadata.labels),
        seconds=f"{metadata.window:.2f}",
        several=" A clip may have several labels, or none." if metadata.multi_label else "",
        needs=needs,
        release=f"Releases from {release} on carry onnxruntime {needs} or newer"
        if release
        else f"No release that was known when this was written carries onnxruntime {needs}; use `triton-python/`",
        version=metadata.fastloaa,
        onnxruntime_web=ONNXRUNTIME_WEB,
        python=_text(f"{of}classify.py"),
        cpp=_text("classify.cpp"),
        javascript=_text("classify.mjs"),
        shell=_text("ask.sh"),
    )


def _text(name: str) -> str:
    return FILES.joinpath(*name.split("/")).read_text(encoding="utf-8")


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _link(path: Path, target: Path) -> None:
    """A link to a file near by, which copies and archives of the folder keep; a copy where there are no links."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    try:
        path.symlink_to(target)
    except OSError:
        shutil.copyfile(path.parent / target, path)
