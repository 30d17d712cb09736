"""`fastloaa export`: a trained run as one ONNX file, alone or ready for a server."""

import shlex
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastloaa.errors import ArgumentError
from fastloaa.export.opsets import DEFAULT, OPSETS
from fastloaa.export.precisions import PRECISIONS

if TYPE_CHECKING:  # what is heavy is imported where it is used, so that --help is quick
    from torch import Tensor

    from fastloaa.audio import SpectrogramFrontEnd

RECORDINGS = 100  # of which 99% agreement allows one to differ; further ones would hardly change the ranges


Precision = Enum("Precision", {name: name for name in PRECISIONS}, type=str)  # type: ignore[misc]


def export(
    run: Annotated[Path, typer.Argument(help="Folder that `fastloaa train --out` made.")],
    model: Annotated[
        Path | None, typer.Argument(help="The ONNX file to write, e.g. model.onnx; not needed with --bundle.")
    ] = None,
    precision: Annotated[
        Precision, typer.Option(help="Of weights and arithmetic; fp16 and int8 need --calibration.")
    ] = Precision("fp32"),
    calibration: Annotated[
        Path | None,
        typer.Option(
            help=f"Folder of recordings (or log-mels) of the kind the model will hear; at most {RECORDINGS} are used."
        ),
    ] = None,
    opset: Annotated[
        int,
        typer.Option(
            help=f"Version of the ONNX operators: {', '.join(map(str, OPSETS))}. The lower, the older runtimes may be."
        ),
    ] = DEFAULT,
    embedding: Annotated[
        bool, typer.Option("--embedding", help="A third output: what the head reads, a vector for each clip.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Keep a file that agrees with PyTorch on less than 99% of them.")
    ] = False,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Folder for model, labels, a page, a README with clients, and NVIDIA Triton's repositories."),
    ] = None,
    web: Annotated[
        str | None,
        typer.Option(
            metavar="npm|ARCHIVE",
            help="onnxruntime-web for the bundle's page: npm fetches its 33 MB, or the archive that `npm pack` made.",
        ),
    ] = None,
    no_merge: Annotated[
        bool, typer.Option("--no-merge", help="Leave the adapters beside the blocks instead of in their weights.")
    ] = False,
    contrib: Annotated[
        bool, typer.Option("--contrib", help="Allow onnxruntime's own operators, which no other runtime has.")
    ] = False,
    weights: Annotated[
        str | None, typer.Option(help="Weights of the backbone, if they are no longer where the run found them.")
    ] = None,
    log_mel: Annotated[
        bool, typer.Option("--log-mel", help="Leave the front end out: normalised log-mel in, not a waveform.")
    ] = False,
) -> None:
    """Write a trained model as one ONNX file, from waveform to probabilities, checked against PyTorch.

    Example: fastloaa export runs/sounds sounds.onnx

    In 8 bits: fastloaa export runs/sounds sounds.onnx --precision int8 --calibration recordings

    For servers and browsers: fastloaa export runs/sounds --bundle sounds --web npm
    """
    from rich.console import Console

    from fastloaa.export import to_onnx, write_bundle
    from fastloaa.export.bundle.browser import put_onnxruntime_web
    from fastloaa.training import load_run

    if model is None and bundle is None:
        raise ArgumentError("give a file to write, or --bundle and a folder")
    if web is not None and bundle is None:
        raise ArgumentError("--web is for the page of a bundle; give --bundle and a folder")
    if bundle is not None and log_mel:
        raise ArgumentError("a bundle's model reads waveforms; leave --log-mel out")
    if PRECISIONS[precision.value].recordings and calibration is None:
        raise ArgumentError(f"{precision.value} needs --calibration and a folder of recordings")
    path = model or bundle / "model.onnx"  # type: ignore[operator]
    with Console(stderr=True).status("loading the run") as status:  # shows on a terminal only
        trained = load_run(run, weights)
        sounds = trained.front_end.reads == "waveform"
        if web is not None and not sounds:
            raise ArgumentError("a page hears sounds, and the run was trained on log-mels; leave --web out")
        if web is not None:  # before the long work, should it be missing
            status.update("taking onnxruntime-web")
            put_onnxruntime_web(web, bundle / "web" / "onnxruntime")  # type: ignore[operator]
        report = to_onnx(
            trained,
            path,
            waveform=not log_mel and sounds,
            merged=not no_merge,
            precision=precision.value,
            opset=opset,
            embedding=embedding,
            calibration=None if calibration is None else recordings(calibration, trained.front_end),
            force=force,
            contrib=contrib,
            progress=status.update,
        )
        if bundle is not None:
            write_bundle(path, bundle)
    print(
        f"{path}: {report.size / 1e6:.1f} MB, {report.precision}, made in {report.seconds:.0f} s; "
        f"opset {report.opset}, for onnxruntime {report.onnxruntime} and newer"
    )
    compared = [f"batches of {', '.join(map(str, report.batches))}"]
    if report.agreement is not None:
        print(f"names the class that PyTorch names for {report.agreement:.1%} of {report.recordings} recordings")
        compared.append("recordings")
    if report.precision != "fp32" and report.recordings:
        compared.pop(0)  # of noise
    print(
        f"largest difference from PyTorch: {report.difference:.1e} (onnxruntime on the CPU, {' and '.join(compared)})"
    )
    if bundle is not None and not sounds:
        print(f"{bundle}: classify.py takes .npy and .npz; without page, C++, JavaScript and Triton, which take sounds")
    elif bundle is not None:
        print(f"{bundle}: README.md says how to ask it from Python, C++, JavaScript and curl, and how to serve it")
        page = f"python3 -m http.server --bind 127.0.0.1 --directory {shlex.quote(str(bundle))}"
        if web is not None:
            print(f"listen in a browser: {page}, then open http://localhost:8000/web/")
        else:
            print("its page listens in a browser once it has onnxruntime-web: export with --web npm, or see README.md")


def recordings(folder: Path, front_end: "SpectrogramFrontEnd") -> "list[Tensor]":
    """What a front end hears of the sounds in a folder, at any depth, spread evenly.

    Broken ones are left out, and those too short for an answer.

    Raises:
        FileNotFoundError: there are none.
    """
    from fastloaa.audio import AudioError, load_beginning, load_log_mel
    from fastloaa.cli.predict import sound_files
    from fastloaa.data.sounds import LeftOut
    from fastloaa.export.hearing import Hearing

    left_out, stored = LeftOut(), front_end.reads == "log_mel"
    paths = sound_files([str(folder)], left_out, log_mels=stored)
    for line in left_out.lines():
        typer.echo(f"left out: {line}", err=True)
    clips = []
    for path in paths[:: -(-len(paths) // RECORDINGS)]:
        try:
            clip = (
                load_log_mel(path, end=front_end.frames)
                if stored
                else load_beginning(path, front_end.sample_rate, front_end.samples)[0]
            )
            if too_short := Hearing.by(front_end).too_short(len(clip)):
                raise AudioError(f"{path}: {too_short}")
            clips.append(clip)
        except AudioError as error:
            typer.echo(f"left out: {error}", err=True)
    if not clips:
        raise FileNotFoundError(f"{folder}: no recording in it can be read")
    return clips
