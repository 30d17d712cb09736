"""Time exported files in onnxruntime: `python bench/exported.py`, `--save` to keep the figures.

From the same AST: without adapters, with adapters as Conv2d, as GEMMs and shifted sums, and merged (fp32, fp16, int8,
and int8 with weights over the full range, which on CPUs without VNNI saturates unless the session option
session.x64quantprecision is set: its cost is timed too).
`--opsets` compares the merged graph in each opset instead, of which "merged" is opset 23, the one with an operator for
attention. All run in turns in one process (see timing.py); "backbone (again)" is a second session of
the backbone's file, and its ratio is the error of the others. `--run` takes a trained run instead of random weights,
and counts right answers too.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnxruntime
import torch
from rich.console import Console
from rich.table import Table
from timing import Timing, describe, in_turns, save
from torch import nn

from fastloaa import AST, LoAA, adapt
from fastloaa.adapters.record import adapt_config
from fastloaa.data import load_splits
from fastloaa.data.reading import read_clip
from fastloaa.export import Classifier, merge
from fastloaa.export.dynamic import quantise_dynamically
from fastloaa.export.graph import Inference
from fastloaa.export.onnx import metadata_of, write_graph
from fastloaa.export.opsets import ATTENTION, OPSETS
from fastloaa.export.quantise import quantise
from fastloaa.training import Recipe, load_run

BACKBONE, CONTROL, MERGED = "backbone", "backbone (again)", "merged"
FULL_RANGE, FULL_RANGE_SAFE = "int8, full range", "int8, full range, x64quantprecision"
DYNAMIC = "merged, int8-dynamic"
PRECISION: dict[str, str] = {
    "merged, fp16": "fp16",
    "merged, int8": "int8",
    DYNAMIC: "int8-dynamic",
    FULL_RANGE: "int8",
    FULL_RANGE_SAFE: "int8",
}
CALIBRATION = 32  # clips


def random_model(depth: int, backbone: str = "deit_base_distilled_patch16_384") -> AST:
    """The paper's AST-base for ESC-50, with adapters that do something, whatever it is."""
    torch.manual_seed(0)
    model = AST(50, frames=512, backbone=backbone, backbone_options={"depth": depth})
    adapt(model, "time", "freq", bottleneck=36).eval()
    for module in model.modules():
        if isinstance(module, LoAA):
            nn.init.normal_(module.up.weight, std=0.02)
    return model


def training_clips(run: str) -> list[torch.Tensor]:
    """Recordings to calibrate on, spread over the run's training split."""
    recipe = Recipe.load(Path(run) / "recipe.yaml")
    splits = load_splits(recipe.data, test_fold=recipe.test_fold, validation=recipe.validation, seed=recipe.seed)
    return [read_clip(clip, recipe.sample_rate) for clip in splits.train[:: -(-len(splits.train) // CALIBRATION)]]


def without_adapters(model: AST) -> AST:
    """The backbone and the head of an adapted model."""
    plain = AST.from_config(model.config())
    plain.load_state_dict({key: value for key, value in model.state_dict().items() if ".loaa_" not in key})
    return plain.eval()


def export_all(model: AST, folder: Path, clips: list[torch.Tensor]) -> dict[str, Path]:
    """Every file that is compared, by the name it has in the table."""
    merged = merge(model)
    graphs = {
        BACKBONE: Inference(without_adapters(model)),
        "conv2d": Inference(model, adapters="conv2d"),
        "gemm and shift": Inference(model),
        MERGED: Inference(merged),
        "merged, fp16": Inference(merged, half=True),
    }
    paths = {}
    for name, graph in graphs.items():
        paths[name] = folder / f"{name}.onnx"
        write_graph(graph, metadata_of(model, precision=PRECISION.get(name, "fp32")), paths[name])
    paths["merged, int8"] = folder / "int8.onnx"
    paths[FULL_RANGE] = folder / "full.onnx"
    for name in ("merged, int8", FULL_RANGE):
        inputs = [clip[None].numpy() for clip in clips]
        quantise(paths[MERGED], paths[name], inputs, saturating=name == FULL_RANGE)
    paths[DYNAMIC] = folder / "dynamic.onnx"
    quantise_dynamically(paths[MERGED], paths[DYNAMIC])
    return paths


def export_opsets(model: AST, folder: Path, _: list[torch.Tensor]) -> dict[str, Path]:
    """The backbone, and the merged model in every opset."""
    paths = {BACKBONE: folder / "backbone.onnx"}
    write_graph(Inference(without_adapters(model)), metadata_of(model), paths[BACKBONE])
    merged = merge(model)
    for opset in OPSETS:
        name = MERGED if opset == ATTENTION else f"opset {opset}"
        paths[name] = folder / f"{opset}.onnx"
        write_graph(Inference(merged, opset=opset), metadata_of(model, opset=opset), paths[name])
    return paths


def sessions(paths: dict[str, Path], provider: str, threads: int) -> dict[str, onnxruntime.InferenceSession]:
    """A session of each file, a second one of the backbone, and one whose full range does not saturate anywhere."""
    opened = {}
    again = {CONTROL: paths[BACKBONE]} | ({FULL_RANGE_SAFE: paths[FULL_RANGE]} if FULL_RANGE in paths else {})
    for name, path in (paths | again).items():
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.x64quantprecision", "1" if name == FULL_RANGE_SAFE else "0")
        opened[name] = onnxruntime.InferenceSession(path, options, providers=[provider])
    return opened


def measure(
    opened: dict[str, onnxruntime.InferenceSession],
    model: AST,
    batch: int,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[dict[str, Timing], list[dict[str, Any]]]:
    """Timings by name, and rows to keep."""
    inputs = [(0.1 * torch.randn(batch, model.front_end.samples)).numpy() for _ in range(2)]

    def candidate(session: onnxruntime.InferenceSession) -> Any:
        return lambda call: session.run(["probabilities"], {"waveform": inputs[call % 2]})

    timings = in_turns(
        {name: candidate(session) for name, session in opened.items()},
        torch.device("cpu"),
        rounds,
        calls=1,
        clock=clock,
    )
    config = adapt_config(model)
    assert config is not None
    rows = [
        {
            "bench": "onnx",
            "provider": name,
            "mode": "forward",
            "batch": batch,
            "freq": model.grid.freq_bins,
            "time": model.grid.time_steps,
            "dim": model.backbone.embed_dim,
            "depth": len(model.backbone.blocks),
            "bottleneck": config.bottleneck,
            "dtype": PRECISION.get(name, "fp32"),
            "clock": clock.__name__,
            "best_ms": timing.best,
            "median_ms": timing.median,
            "p20_ms": timing.percentile(20),
            "p80_ms": timing.percentile(80),
            "p95_ms": timing.percentile(95),
            "ratio": timing.best / timings[BACKBONE].best,
            "ratio_to_merged": timing.best / timings[MERGED].best,
        }
        for name, timing in timings.items()
    ]
    return timings, rows


def show(console: Console, timings: dict[str, Timing], batch: int) -> None:
    table = Table(title=f"batch {batch}, ms", title_justify="left")
    for heading in ("graph", "p50", "p95", "best", "clips/s", "/ backbone", "/ merged"):
        table.add_column(heading, justify="left" if heading == "graph" else "right", no_wrap=True)
    for name, timing in timings.items():
        table.add_row(
            name,
            *(f"{ms:.1f}" for ms in (timing.median, timing.percentile(95), timing.best)),
            f"{1e3 * batch / timing.best:.1f}",
            *(f"{timing.best / timings[other].best:.3f}" for other in (BACKBONE, MERGED)),
        )
    console.print(table)


def show_accuracy(console: Console, run: str, paths: dict[str, Path]) -> list[dict[str, Any]]:
    """Right answers on the run's test split, of the merged graph in each precision, and how many are float32's."""
    recipe = Recipe.load(Path(run) / "recipe.yaml")
    splits = load_splits(recipe.data, test_fold=recipe.test_fold, validation=recipe.validation, seed=recipe.seed)
    rows: list[dict[str, Any]] = []
    expected = [splits.classes[clip.labels[0]] for clip in splits.test]
    float32: list[str] = []
    for name in (MERGED, *(name for name in PRECISION if name in paths)):
        predictions = Classifier(paths[name]).classify([clip.path for clip in splits.test], top=1)
        answers = [prediction.labels[0] for prediction in predictions]
        float32 = float32 or answers
        right, same = (sum(map(str.__eq__, answers, wanted)) for wanted in (expected, float32))
        console.print(f"{name}: {right} of {len(answers)} test clips right, {same} answered as in float32")
        row = {"bench": "onnx", "provider": name, "mode": "top-1", "clips": len(answers), "right": right, "same": same}
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=12, help="blocks of the random AST-base")
    parser.add_argument("--run", help="folder of a trained LoAA run to take instead")
    parser.add_argument("--opsets", action="store_true", help="compare the opsets instead")
    parser.add_argument("--weights", help="weights of its backbone, if they have moved")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=24, help="at batch 1; a quarter of them at larger ones")
    parser.add_argument("--threads", type=int, default=0, help="of onnxruntime on CPUs; 0: all cores")
    parser.add_argument(
        "--processor", action="store_true", help="time of the processor, of one thread on a busy machine"
    )
    parser.add_argument("--save", action="store_true", help="write the figures to bench/results/")
    arguments = parser.parse_args()

    if arguments.processor and arguments.threads != 1:
        parser.error("--processor goes with --threads 1")
    clock = time.process_time if arguments.processor else time.perf_counter
    console = Console()
    on_gpu = "CUDAExecutionProvider" in onnxruntime.get_available_providers() and torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    provider = "CUDAExecutionProvider" if on_gpu else "CPUExecutionProvider"
    console.print(describe(device), soft_wrap=True)
    console.print(f"onnxruntime {onnxruntime.__version__}, {provider}, {arguments.threads or 'all'} threads")
    if arguments.run:
        model, clips = load_run(arguments.run, arguments.weights), training_clips(arguments.run)
    else:
        model = random_model(arguments.depth)
        clips = [0.1 * torch.randn(model.front_end.samples) for _ in range(4)]
    rows: list[dict[str, Any]] = []
    with TemporaryDirectory() as folder:
        paths = (export_opsets if arguments.opsets else export_all)(model, Path(folder), clips)
        for name, path in paths.items():
            console.print(f"{name}: {path.stat().st_size / 1e6:.1f} MB")
        opened = sessions(paths, provider, arguments.threads)
        for batch in arguments.batch:
            rounds = arguments.rounds if batch == 1 else max(4, arguments.rounds // 4)
            timings, measured = measure(opened, model, batch, rounds, clock)
            show(console, timings, batch)
            rows += measured
        if arguments.run and not arguments.opsets:
            rows += show_accuracy(console, arguments.run, paths)
    if arguments.save:
        console.print(f"saved to {save('opsets' if arguments.opsets else 'onnx', device, rows)}")


if __name__ == "__main__":
    main()
