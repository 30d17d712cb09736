"""What the examples share: transformers to start from, synthesised words, and runs compared seed by seed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from fastloaa.data import PRETRAIN_WORDS, synthesise_words
from fastloaa.training import Recipe, train
from fastloaa.training.sweep_table import Spread, SweepTable, in_words

BACKBONE = "deit_tiny_distilled_patch16_224"  # 192 wide
IMAGES = Path(__file__).parent / "backbones" / "deit_tiny_depth6_tiny_imagenet.safetensors"
"""Six blocks of it that have seen Tiny ImageNet, see the card beside the file."""
console = Console(soft_wrap=True)


def pretrained(out: Path, depth: int, epochs: int = 16) -> Path:
    """A transformer trained from scratch on words that the adaptation never sees; the path of its weights."""
    say("Pre-train", f"a small vision transformer on {len(PRETRAIN_WORDS)} spoken words, synthesised on the spot.")
    data = synthesised(out / "pretrain-words", PRETRAIN_WORDS, voices=60)
    recipe = Recipe(
        data=str(data), method="full", epochs=epochs, batch_size=32, lr=1e-3, weight_decay=0.05, freq_mask=24,
        time_mask=16, backbone=BACKBONE, backbone_options={"depth": depth, "drop_path_rate": 0.1},
    )  # fmt: skip
    trained(recipe, out / "backbone")
    return out / "backbone" / "model.safetensors"


def synthesised(folder: Path, words: tuple[str, ...], voices: int) -> Path:
    """The words in so many voices, made once."""
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"{len(words)} words, {voices} voices", total=None)
        return synthesise_words(
            folder, words, voices, progress=lambda done, total: progress.update(task, completed=done, total=total)
        )


def trained(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """The run's result.json: trained now, or earlier with the same recipe."""
    result_file = folder / "result.json"
    if result_file.is_file() and Recipe.load(folder / "recipe.yaml") == recipe:
        console.print(f"  already trained: {folder} (delete it to train again)")
    else:
        train(recipe, folder, console=console, overwrite=result_file.is_file())
    result: dict[str, Any] = json.loads(result_file.read_text())
    return result


def say(what: str, why: str) -> None:
    """A heading."""
    console.print(f"\n[bold]{what}[/bold] {why}")


def finished(table: SweepTable) -> SweepTable:
    """The table, if every run of it came to its end."""
    if table.failures:
        raise SystemExit("\n".join(f"{run}: {why}" for run, why in table.failures.items()))
    return table


def difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> str:
    """Accuracy above another's, seed by seed (`SweepTable.seed_means`), in points: `+1.2 ± 0.4`."""
    spread = Spread.of([ours[seed] - theirs[seed] for seed in ours])
    return f"{'+' if spread.mean >= 0 else ''}{in_words(spread, percent=True)}"
