"""Three tasks on one backbone: adapters for each folder of sounds, then one model that answers for all of them.

python examples/three_tasks.py OUT BIRDS SPEECH MACHINES
"""

import sys
from pathlib import Path

from shared import BACKBONE, IMAGES, say, trained

from fastloaa import AST, model_adapters, name_adapters, trainable_parameters
from fastloaa.audio import STATISTICS
from fastloaa.data import load_splits
from fastloaa.training import Recipe, evaluate, load_run

MEAN, STD = STATISTICS["audioset"]  # for all of them, since one front end serves them


def main(out: str, *folders: str, frames: int = 128, epochs: int = 10) -> dict[str, float]:
    model_options = {"backbone": BACKBONE, "backbone_options": {"depth": 6}, "frames": frames, "mean": MEAN, "std": STD}
    tasks = {}
    for folder in folders:
        name = Path(folder).resolve().name
        say("Adapt", f"to {name}.")
        recipe = Recipe(data=folder, weights=str(IMAGES), batch_size=12, epochs=epochs, **model_options)
        trained(recipe, Path(out) / name)
        tasks[name] = load_run(Path(out) / name)
    model = AST(num_classes=1, weights=IMAGES, **model_options).eval()  # its own head answers for none of them
    own = sum(parameter.numel() for parameter in model.parameters())
    name_adapters(model, tasks)
    say("One model", f"of {own:,} parameters, and {', '.join(f'{trainable_parameters(t):,}' for t in tasks.values())}.")
    found = {}
    for (name, task), folder in zip(tasks.items(), folders, strict=True):
        model.num_classes, model.labels = task.num_classes, task.labels
        with model_adapters(model, name):
            found[name] = evaluate(model, load_splits(folder).test).accuracy or 0.0
        print(f"{name}: {found[name]:.1%} of its test clips")
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
