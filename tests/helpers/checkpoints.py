"""A checkpoint as a run leaves it."""

import torch

from fastloaa.training.checkpoint import Checkpoint, Position, Score

CHECKPOINT = Checkpoint(
    position=Position(2, 17, 3, 18, 1 / 3, 0.1, 2.5, Score(1, 0.5, 0.7), ["a: broken"], ["b: broken"]),
    model_config={"frames": 64},
    origin={"data": "abc"},
    scaler={"scale": 65536.0},
    weights={"head.1.weight": torch.randn(3, 4)},
    optimiser={"head.1.weight/exp_avg": torch.randn(3, 4), "head.1.weight/step": torch.tensor(17.0)},
    best={"head.1.weight": torch.randn(3, 4)},
    average={"head.1.weight": torch.randn(3, 4)},
)
