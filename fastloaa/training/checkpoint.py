"""Where a run stands: one safetensors file that is replaced as a whole, so that a kill at any moment leaves a good one.

Tensors: `model/<name>` (what trains, live), `optimiser/<name>/<key>`, `best/<name>` (chosen so far, if any),
`average/<name>` and `ema/<name>` (if asked for); everything else is JSON in the file's metadata. No code is in it.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastloaa.files import FileError, read_safetensors, understanding, write_safetensors
from fastloaa.inputs.options import build, check_types


@dataclass(frozen=True)
class Score:
    """What an epoch reached on the validation clips."""

    epoch: int  # counted from 1
    value: float  # of the recipe's metric
    loss: float

    def __post_init__(self) -> None:
        check_types(self)

    def beats(self, other: "Score | None") -> bool:
        """A higher value, or the same with a lower loss; the earlier epoch keeps a draw."""
        return other is None or (self.value, -self.loss) > (other.value, -other.loss)


@dataclass
class Position:
    """How far a run has come. `step` counts batches from the start; the rest of the middle block is of this epoch."""

    epoch: int = 0  # epochs completed
    step: int = 0

    batch: int = 0
    clips: int = 0
    loss_sum: float = 0.0  # over clips
    epoch_seconds: float = 0.0

    seconds: float = 0.0  # of training in all, without validation and checkpoints
    best: Score | None = None
    broken: list[str] = field(default_factory=list)  # one-line errors of training files that could not be read
    broken_validation: list[str] = field(default_factory=list)
    broken_clips: list[int] = field(default_factory=list)  # of the training clips, those that could not be read

    def __post_init__(self) -> None:
        check_types(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Position":
        """
        Raises:
            OptionError: a value of the wrong type, or an unknown or missing name.
        """
        best = values.get("best")
        return build(cls, values | {"best": best and build(Score, best, "score")}, "position")


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to go on.

    Attributes:
        model_config: `AST.config()`, so that frames, mean and std need not be measured again.
        origin: fingerprints of what training started from, "data" and "backbone".
        scaler: state of the fp16 loss scaler, {} without one.
        weights, optimiser, best, average, ema: tensors by name.
    """

    position: Position
    model_config: dict[str, Any]
    origin: dict[str, str]
    scaler: dict[str, float]
    weights: dict[str, Tensor]
    optimiser: dict[str, Tensor]
    best: dict[str, Tensor]
    average: dict[str, Tensor]
    ema: dict[str, Tensor] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        parts = {name: getattr(self, field) for name, field in _PARTS.items()}
        tensors = {f"{part}/{name}": tensor for part, named in parts.items() for name, tensor in named.items()}
        metadata = {
            "kind": "checkpoint",
            "position": asdict(self.position),
            "model": self.model_config,
            "origin": self.origin,
            "scaler": self.scaler,
        }
        write_safetensors(path, tensors, metadata)

    @classmethod
    def load(cls, path: Path) -> "Checkpoint":
        """
        Raises:
            FileError: not a checkpoint, or damaged.
        """
        tensors, metadata = read_safetensors(path)
        if metadata.get("kind") != "checkpoint":
            raise FileError(f"{path}: not a checkpoint; start again with --overwrite")
        parts: dict[str, dict[str, Tensor]] = {name: {} for name in _PARTS}
        with understanding(path, "a checkpoint"):
            for entry, tensor in tensors.items():
                part, name = entry.split("/", 1)
                parts[part][name] = tensor
            return cls(
                position=Position.from_json(dict(metadata["position"])),
                model_config=dict(metadata["model"]),
                origin=dict(metadata["origin"]),
                scaler=dict(metadata["scaler"]),
                **{field: parts[name] for name, field in _PARTS.items()},
            )


_PARTS = {"model": "weights", "optimiser": "optimiser", "best": "best", "average": "average", "ema": "ema"}
"""What a tensor's name begins with, and the field that it is in."""


def changing_state(model: nn.Module) -> dict[str, Tensor]:
    """The entries of the state dict that training changes: trainable parameters and buffers. Not copies."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in frozen}


def copy_of_state(model: nn.Module) -> dict[str, Tensor]:
    """`changing_state` on the CPU, in memory of its own: training goes on without changing it."""
    return {name: torch.empty_like(t, device="cpu").copy_(t) for name, t in changing_state(model).items()}


def load_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Put such entries back.

    Raises:
        FileError: they are not those of this model.
    """
    shapes, given = ({name: t.shape for name, t in tensors.items()} for tensors in (changing_state(model), state))
    if differing := {name for name, _ in shapes.items() ^ given.items()}:
        raise FileError(f"the checkpoint and the model differ in {min(differing)}; start again with --overwrite")
    model.load_state_dict(state, strict=False)


def average_in(average: dict[str, Tensor], state: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """The mean of `count` states, from the mean of those before and the last one; what is no float is the last one's.

    Args:
        average: on the CPU, empty for the first.
        state: from `copy_of_state`.
    """
    return {
        name: average[name].lerp(tensor, 1 / count) if count > 1 and tensor.is_floating_point() else tensor
        for name, tensor in state.items()
    }
