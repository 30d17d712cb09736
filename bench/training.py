"""What an adapter costs a training step: `python bench/training.py`, `--save` to keep the figures.

A step is forward, loss, backward and AdamW on log-mels that lie on the device. Ratios are to the frozen backbone with
a gradient back to its first block: what any method pays that puts something trainable into every block. Candidates
run in turns (see timing.py); "(again)" is a second copy, and its ratio is the error of the others.
"""

from typing import Any

import torch
import torch.nn.functional as F
from models import CLASSES, Case, Variant, chosen, parse, rows, say_machine, show, variants
from rich.console import Console
from timing import describe, in_turns, save
from torch import Tensor, nn

from fastloaa.adapters.adapting import trainable_parameters
from fastloaa.backbones import backbone_of

LR = 1e-5  # low: thousands of steps on noise must not end in NaN


class Step:
    """One model with its optimiser and a batch."""

    def __init__(self, variant: Variant, case: Case, device: torch.device) -> None:
        self.case, self.device = case, device
        self.model = variant.build(case, device).train()
        if variant.method == "probe":
            backbone_of(self.model).blocks[0].register_forward_pre_hook(_want_gradient)
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(trainable, lr=LR, fused=True)
        self.log_mel = case.log_mel(device)
        self.labels = torch.randint(CLASSES, (case.batch,), device=device)

    def __call__(self, _: int) -> None:
        self.loss().backward()
        self.optimiser.step()
        self.optimiser.zero_grad()

    def loss(self) -> Tensor:
        with self.case.precision(self.device):
            return F.cross_entropy(self.model(self.log_mel), self.labels)

    def kept_mb(self) -> float:
        """What autograd keeps for the backward pass beside the model's own weights, in MB of 1e6 bytes."""
        weights = {parameter.untyped_storage().data_ptr() for parameter in self.model.parameters()}
        kept: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage().data_ptr()
            if storage not in weights:
                kept[storage] = tensor  # alive, so that no other tensor takes its place
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            self.loss()
        return round(sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / 1e6, 3)


def _want_gradient(block: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (inputs[0].detach().requires_grad_(), *inputs[1:])


def peak_mb(variant: Variant, case: Case, device: torch.device) -> float | None:
    """Peak memory of a step in MB of 1e6 bytes, the model alone on the device; None on a CPU."""
    if device.type != "cuda":
        return None
    before = torch.cuda.memory_allocated()
    step = Step(variant, case, device)
    for call in range(2):  # the first makes the optimiser's state
        torch.cuda.reset_peak_memory_stats()
        step(call)
    return round((torch.cuda.max_memory_allocated() - before) / 1e6, 1)


def measure(case: Case, device: torch.device, found: list[Variant], rounds: int) -> list[dict[str, Any]]:
    """Rows of one case."""
    memory = {variant.name: peak_mb(variant, case, device) for variant in found}
    steps = {variant.name: Step(variant, case, device) for variant in found}
    timings = in_turns(dict(steps), device, rounds, calls=3 if device.type == "cuda" else 1)
    about = {
        name: {"trainable": trainable_parameters(step.model), "kept_mb": step.kept_mb(), "peak_mb": memory[name]}
        for name, step in steps.items()
    }
    return rows("training", "step", case, timings, about)


def main() -> None:
    cases, arguments = parse(__doc__ or "", cpu_grids=["8x8", "8x25"], rounds=10)
    console, device = Console(), torch.device(arguments.device)
    say_machine(console, describe(device), cases[0], device)
    found = chosen([*variants(device, arguments.compile), Variant("full fine-tuning", "full", {})], arguments.only)
    measured: list[dict[str, Any]] = []
    for case in cases:
        lines = measure(case, device, found, arguments.rounds)
        show(console, case, lines)
        measured += lines
    if arguments.save:
        console.print(f"saved to {save('training', device, measured)}")


if __name__ == "__main__":
    main()
