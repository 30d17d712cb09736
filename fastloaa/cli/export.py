"""`fastloaa export`: a trained run as one ONNX file."""

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(help="Folder that `fastloaa train --out` made.")],
    model: Annotated[Path, typer.Argument(help="The ONNX file to write, e.g. model.onnx.")],
    weights: Annotated[
        str | None, typer.Option(help="Weights of the backbone, if they are no longer where the run found them.")
    ] = None,
    log_mel: Annotated[
        bool, typer.Option("--log-mel", help="Leave the front end out: normalised log-mel in, not a waveform.")
    ] = False,
) -> None:
    """Write a trained model as one ONNX file, from waveform to probabilities, checked against PyTorch.

    Example: fastloaa export runs/sounds sounds.onnx
    """
    from rich.console import Console

    from fastloaa.export import to_onnx
    from fastloaa.training import load_run

    with Console(stderr=True).status("Exporting, then comparing with PyTorch"):  # shows on a terminal only
        report = to_onnx(load_run(run, weights), model, waveform=not log_mel)
    print(f"{model}: {report.size / 1e6:.1f} MB, opset {report.opset}, made in {report.seconds:.0f} s")
    print(
        f"largest difference from PyTorch: {report.difference:.1e} "
        f"(onnxruntime on the CPU, batches of {', '.join(map(str, report.batches))})"
    )
