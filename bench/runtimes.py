"""Which runtimes read an exported file, with the same answers, and how fast: `python bench/runtimes.py`, `--save`.

Each of RUNTIMES gets a virtual environment (a folder of node_modules) of its own in `--work`, a gigabyte or two in all,
which a second run finds there. They read the same files, one model in every opset and precision, with one thread.
A difference is the largest of a logit from what the newest onnxruntime says of the same file, which `to_onnx` has
compared with PyTorch. Times are the processor's, not the wall's, so that they hardly depend on what else the machine
does, and are taken in turns, a call of each runtime after the other; what stands in the table is the best of them over
the newest onnxruntime's best.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from timing import describe, machine, put_into, save
from torch import nn

from fastloaa import AST, LoAA, adapt
from fastloaa.export import to_onnx
from fastloaa.export.opsets import OPSETS
from fastloaa.export.precisions import PRECISIONS

HERE = Path(__file__).parent
BACKBONE = HERE.parent / "examples" / "backbones" / "deit_tiny_depth6_tiny_imagenet.safetensors"
PAGE, PLACE = HERE.parent / "docs" / "deployment.md", "runtimes"
NEWEST = "onnxruntime"
RUNTIMES: dict[str, tuple[str, ...]] = {
    **{f"onnxruntime 1.{minor}": (f"onnxruntime==1.{minor}.*", "numpy<2") for minor in (17, 18)},
    **{f"onnxruntime 1.{minor}": (f"onnxruntime==1.{minor}.*", "numpy") for minor in (20, 22, 23, 24)},
    NEWEST: ("onnxruntime", "numpy"),
    "OpenVINO 2025.4": ("openvino==2025.4.*", "numpy"),
    "OpenVINO 2026.1": ("openvino==2026.1.*", "numpy"),
    "OpenVINO": ("openvino", "numpy"),
    "onnxruntime-web": ("onnxruntime-web",),
}
"""By name, what pip (npm for the last) installs; without a version, the newest there is."""


@dataclass
class Worker:
    """A process with one runtime in it, started again after it has died."""

    command: Sequence[str]
    folder: Path
    process: "subprocess.Popen[str] | None" = None

    def ask(self, **command: Any) -> dict[str, Any]:
        """Its answer, or an error of one line."""
        if self.process is None:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            print(json.dumps(command), file=self.process.stdin, flush=True)
            for line in self.process.stdout:
                if line.startswith("{"):  # what is not is a runtime's own chatter
                    answer = json.loads(line)
                    if "error" in answer:  # which may name the file; where it lies is nobody's business
                        answer["error"] = answer["error"].replace(f"{self.folder.parent}{os.sep}", "")
                    return answer
        except BrokenPipeError:
            pass
        code = self.process.wait()
        self.process = None
        return {"error": f"the process ended with {code}"}

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()


def install(name: str, packages: Sequence[str], work: Path) -> tuple[Worker, str]:
    """A worker for a runtime, and the runtime's version."""
    folder = work / name.replace(" ", "-")
    if packages == ("onnxruntime-web",):
        if not (folder / "node_modules").exists():
            folder.mkdir(parents=True, exist_ok=True)
            command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", *packages]
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        about = json.loads((folder / "node_modules" / "onnxruntime-web" / "package.json").read_text())
        return Worker(["node", str(HERE / "runtimes_worker.mjs")], folder), about["version"]
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        (folder / "installed").touch()
    package = packages[0].partition("=")[0]
    show = f"from importlib.metadata import version; print(version({package!r}))"
    version = subprocess.run([python, "-c", show], check=True, capture_output=True, text=True).stdout.strip()
    return Worker([str(python), str(HERE / "runtimes_worker.py"), package], folder), version


def make_model(backbone: Path) -> AST:
    """Six blocks, 192 wide, with weights that have seen images, and adapters that do something, whatever it is."""
    torch.manual_seed(0)
    options = {"depth": 6}
    model = AST(50, 512, backbone="deit_tiny_distilled_patch16_224", weights=backbone, backbone_options=options)
    adapt(model, "time", "freq", bottleneck=36).eval()
    for module in model.modules():
        if isinstance(module, LoAA):
            nn.init.normal_(module.up.weight, std=0.02)
    return model


def export_all(
    model: AST, folder: Path, opsets: Iterable[int], precisions: Iterable[str]
) -> dict[tuple[int, str], Path]:
    """One file for each opset and precision; those that are there are left.

    Each opset is translated once for float32 and for what is made of that file.
    """
    clips = [0.1 * torch.randn(model.front_end.samples) for _ in range(8)]
    paths = {}
    for opset in opsets:
        plain = folder / f"{opset}-fp32.onnx"
        for precision in ("fp32", *(name for name in precisions if name != "fp32")):
            paths[opset, precision] = path = folder / f"{opset}-{precision}.onnx"
            if path.exists():
                continue
            if convert := PRECISIONS[precision].convert:
                convert(plain, path, [clip[None].numpy() for clip in clips])
            else:
                to_onnx(model, path, opset=opset, precision=precision, calibration=clips[:2], force=True)
    return paths


def compare(
    workers: dict[str, Worker], path: Path, samples: Path, shape: Sequence[int], rounds: int
) -> dict[str, dict[str, Any]]:
    """What each runtime says of one file: an error, or largest difference and best time."""
    found: dict[str, dict[str, Any]] = {}
    logits = {}
    for name, worker in workers.items():
        answer = worker.ask(load=str(path))
        if "error" not in answer:
            answer = worker.ask(run=str(samples), shape=list(shape))
        found[name] = {key: value for key, value in answer.items() if key == "error"}
        if "logits" in answer:
            logits[name] = np.array(answer["logits"], np.float64)
    best = dict.fromkeys(logits, np.inf)
    for turn in range(rounds):
        names = list(best)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            best[name] = min(best[name], workers[name].ask(time=3).get("ms", np.inf))
    for name, rows in logits.items():
        difference = float(np.abs(rows - logits[NEWEST]).max()) if NEWEST in logits else np.nan
        found[name] = {"difference": difference, "best_ms": best[name], "ratio": best[name] / best.get(NEWEST, np.nan)}
    return found


def table(rows: Sequence[dict[str, Any]], precision: str) -> str:
    """Markdown: a line for each runtime, a column for each opset; difference and time, a dash where it is refused."""
    chosen = {(row["provider"], row["opset"]): row for row in rows if row["dtype"] == precision}
    opsets = sorted({opset for _, opset in chosen})
    lines = [f"| {precision} | " + " | ".join(f"opset {opset}" for opset in opsets) + " |"]
    lines.append("|---|" + "---:|" * len(opsets))
    for provider in dict.fromkeys(name for name, _ in chosen):
        cells = []
        for opset in opsets:
            row = chosen[provider, opset]
            cells.append("–" if row["error"] else f"{power(row['difference'])}, {row['ratio']:.2f}")
        lines.append(f"| {provider} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def power(difference: float) -> str:
    """One digit: 0, 3e-4, 1."""
    return f"{difference:.0e}".replace("e-0", "e-").removesuffix("e+00")


def page_part(rows: Sequence[dict[str, Any]], about: dict[str, Any], command: str) -> str:
    """What stands in the documentation: a table for each precision, and where the figures are from."""
    tables = [table(rows, precision) for precision in dict.fromkeys(row["dtype"] for row in rows)]
    source = (
        f"<sub>`{command}`, {about['date']}, commit {about['commit']}: DeiT-tiny of six blocks (examples/backbones) "
        f"merged with LoAA, {rows[0]['batch']} clips of 5.1 s, one thread, time of the processor, {about['cpu']}. "
        "OpenVINO was told to compute in float32, or it takes bfloat16 where the CPU has it.</sub>"
    )
    return "\n\n".join([*tables, "\n".join(textwrap.wrap(source, 120, break_on_hyphens=False))]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/runtimes"), help="folder for environments and files")
    parser.add_argument("--opset", type=int, nargs="+", default=list(OPSETS), choices=list(OPSETS))
    parser.add_argument("--precision", nargs="+", default=list(PRECISIONS), choices=list(PRECISIONS))
    parser.add_argument("--runtime", nargs="+", default=list(RUNTIMES), choices=list(RUNTIMES))
    parser.add_argument("--backbone", type=Path, default=BACKBONE, help="weights of a DeiT-tiny of six blocks")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--save", action="store_true", help="write to bench/results/, and the tables to the docs")
    arguments = parser.parse_args()

    console = Console()
    console.print(describe(torch.device("cpu")), soft_wrap=True)
    work = arguments.work.resolve()
    workers, versions = {}, {}
    for name in dict.fromkeys([NEWEST, *arguments.runtime]):
        with console.status(f"installing {name}"):
            workers[name], versions[name] = install(name, RUNTIMES[name], work)
        console.print(f"{name}: {versions[name]}")
    model = make_model(arguments.backbone)
    with console.status("exporting"):
        (work / "files").mkdir(parents=True, exist_ok=True)
        paths = export_all(model, work / "files", arguments.opset, arguments.precision)
    shape = (arguments.batch, model.front_end.samples)
    (0.1 * torch.randn(shape)).numpy().tofile(work / "samples.raw")
    rows = []
    for (opset, precision), path in paths.items():
        with console.status(f"opset {opset}, {precision}"):
            found = compare(workers, path, work / "samples.raw", shape, arguments.rounds)
        console.print(f"opset {opset}, {precision}: {found}", soft_wrap=True)
        for name, said in found.items():
            label = f"{name.rpartition(' ')[0] or name} {versions[name]}"
            asked = {
                "bench": "runtimes",
                "provider": label,
                "batch": arguments.batch,
                "opset": opset,
                "dtype": precision,
            }
            rows.append(
                asked | {"error": said.get("error"), **{k: said.get(k) for k in ("difference", "best_ms", "ratio")}}
            )
    for worker in workers.values():
        worker.end()
    about = machine(torch.device("cpu"))
    part = page_part(rows, about, shlex.join(["python", "bench/runtimes.py", *sys.argv[1:]]))
    print(f"\n{part}")
    for reason in dict.fromkeys(f"{row['provider']}: {row['error']}" for row in rows if row["error"]):
        console.print(reason, soft_wrap=True)
    if arguments.save:
        console.print(f"saved to {save('runtimes', torch.device('cpu'), rows)}")
        put_into(PAGE, PLACE, part)


if __name__ == "__main__":
    main()
