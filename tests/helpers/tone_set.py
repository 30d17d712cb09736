"""A data set of tones, one pitch per label folder, and a recipe small enough to train on it in a second."""

from pathlib import Path

import numpy as np
import soundfile

from fastloaa.training import Recipe
from helpers.small import SMALL

PITCHES = (300, 1000, 3000)


def write_tones(root: Path, clips: int = 12, seconds: float = 0.3, rate: int = 16000) -> Path:
    """`root/<pitch>/<number>.wav`, with random phases and a little noise."""
    rng = np.random.default_rng(0)
    time = np.arange(round(seconds * rate)) / rate
    for pitch in PITCHES:
        (root / f"{pitch}Hz").mkdir(parents=True)
        for number in range(clips):
            tone = 0.3 * np.sin(2 * np.pi * pitch * time + rng.uniform(0, 6)) + 0.02 * rng.standard_normal(len(time))
            soundfile.write(root / f"{pitch}Hz" / f"{number}.wav", tone, rate)
    return root


def small_recipe(data: Path, **changes: object) -> Recipe:
    """48 wide, two blocks, 64 frames; two epochs unless told otherwise."""
    values: dict[str, object] = {
        "data": str(data),
        "method_options": {"bottleneck": 8} if changes.get("method", "loaa") == "loaa" else {},
        "backbone": "deit_tiny_distilled_patch16_224",
        "backbone_options": SMALL,
        "frames": 64,
        "epochs": 2,
        "batch_size": 6,
        "lr": 5e-3,
        "freq_mask": 0,
        "time_mask": 0,
    }
    return Recipe.from_dict(values | changes)
