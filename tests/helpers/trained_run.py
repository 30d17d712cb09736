"""What a finished run leaves on disk, without training one."""

from pathlib import Path

from fastloaa import AST, adapt, save_adapter
from fastloaa.training import Recipe
from helpers.small import SMALL, small_ast, wake_adapters

SHALLOW = SMALL | {"depth": 1}
LABELS = ("dog", "rain", "saw", "sea", "clock")


def write_run(folder: Path, **method_options: object) -> tuple[AST, Path]:
    """The adapted model and its run directory; its recipe and adapters, beside the backbone they were made for."""
    model = small_ast(labels=LABELS, backbone_options=SHALLOW)
    model.save(folder / "backbone.safetensors")
    options = {"attn": "time", "ffn": "freq", "bottleneck": 4} | method_options
    recipe = Recipe(
        data="sounds",
        method="loaa",
        method_options=options,
        backbone="deit_tiny_distilled_patch16_224",
        backbone_options=SHALLOW,
        weights=str(folder / "backbone.safetensors"),
    )
    recipe.save(folder / "run" / "recipe.yaml")
    adapt(model, **options)  # type: ignore[arg-type]
    wake_adapters(model)
    save_adapter(model, folder / "run" / "adapter.safetensors")
    return model, folder / "run"
