"""What an adapter costs a forward pass: `python bench/inference.py`, `--save` to keep the figures.

Log-mels that lie on the device to logits, without gradients; "merged" is `fastloaa.export.merge` of the model before
it. Weights of convolutions are stored channels_last, as one does for serving. On a GPU the same calls are timed again
as replays of CUDA graphs, which leave the host out: at small batches it is all that eager calls wait for.
Candidates run in turns (see timing.py) after all copies of one model have given the same logits; "(again)" is a second
copy of the backbone, and its ratio is the error of the others.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from models import RANKS, Case, Variant, chosen, parse, rows, say_machine, show, variants
from rich.console import Console
from timing import describe, in_turns, save
from torch import Tensor, nn

from fastloaa.export import merge
from fastloaa.training.precision import freeze_in_bf16

GRAPH = "forward, CUDA graph"


def models(case: Case, device: torch.device, found: list[Variant]) -> dict[str, nn.Module]:
    """Every variant as it would serve, and the merged ones."""
    built = {variant.name: variant.build(case, device).eval().requires_grad_(False) for variant in found}
    if case.dtype == "bf16":
        for model in built.values():
            freeze_in_bf16(model)
    for rank in RANKS:
        name = f"LoAA r={rank} torch"
        if name in built:
            built[f"LoAA r={rank} merged"] = merge(built[name])
    return {name: model.to(memory_format=torch.channels_last) for name, model in built.items()}


def call(model: nn.Module, case: Case, log_mels: list[Tensor]) -> Callable[[int], Tensor]:
    def run(number: int) -> Tensor:
        log_mel = log_mels[number % len(log_mels)]
        with torch.no_grad(), case.precision(log_mel.device):
            return model(log_mel)

    return run


def graphed(call: Callable[[int], Tensor]) -> Callable[[int], None]:
    """The call as a replay of a CUDA graph, on its first input."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call(0)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call(0)
    return lambda _: graph.replay()


def check_equal(case: Case, calls: dict[str, Callable[[int], Tensor]]) -> None:
    """All LoAA models of one rank compute the same, or nothing is timed."""
    bound = 1e-4 if case.dtype == "fp32" else 5e-2
    for rank in RANKS:
        logits = {name: run(0).float() for name, run in calls.items() if name.startswith(f"LoAA r={rank} ")}
        for name, given in logits.items():
            expected = next(iter(logits.values()))
            error = float((given - expected).norm() / expected.norm())
            if not error < bound:
                sys.exit(f"{name} computes something else on {case}: relative error {error:.1e}; nothing was timed")


def measure(case: Case, device: torch.device, found: list[Variant], rounds: int) -> list[dict[str, Any]]:
    """Rows of one case."""
    built = models(case, device, found)
    log_mels = [case.log_mel(device) for _ in range(2)]
    calls = {name: call(model, case, log_mels) for name, model in built.items()}
    check_equal(case, calls)
    timings = in_turns(dict(calls), device, rounds, calls=3 if device.type == "cuda" else 1)
    lines = rows("inference", "forward", case, timings)
    if device.type == "cuda":
        replays = {name: graphed(call) for name, call in calls.items()}
        lines += rows("inference", GRAPH, case, in_turns(replays, device, rounds, queued=True))
    return lines


def main() -> None:
    cases, arguments = parse(__doc__ or "", cpu_grids=["8x64", "8x8"], rounds=15)
    console, device = Console(), torch.device(arguments.device)
    say_machine(console, describe(device), cases[0], device)
    found = chosen(variants(device, arguments.compile), arguments.only)
    measured: list[dict[str, Any]] = []
    for case in cases:
        lines = measure(case, device, found, arguments.rounds)
        for mode in dict.fromkeys(line["mode"] for line in lines):
            show(console, case, [line for line in lines if line["mode"] == mode])
        measured += lines
    if arguments.save:
        console.print(f"saved to {save('inference', device, measured)}")


if __name__ == "__main__":
    main()
