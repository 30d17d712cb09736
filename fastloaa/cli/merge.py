"""`fastloaa merge`: a trained run as one model without adapters."""

from pathlib import Path
from typing import Annotated

import typer


def merge(
    run: Annotated[Path, typer.Argument(help="Folder that `fastloaa train --out` made, with method loaa.")],
    model: Annotated[Path, typer.Argument(help="The file to write, e.g. merged.safetensors.")],
    weights: Annotated[
        str | None, typer.Option(help="Weights of the backbone, if they are no longer where the run found them.")
    ] = None,
) -> None:
    """Dissolve the adapters of a trained model into its own matrices: the same answers from one file of plain weights.

    In Python, fastloaa.export.load_merged(FILE) brings it back; `fastloaa export` merges by itself.

    Example: fastloaa merge runs/sounds sounds.safetensors
    """
    import torch

    from fastloaa.adapters.record import adapt_config
    from fastloaa.export import merge, save_merged
    from fastloaa.export.merging.merge import MergeError
    from fastloaa.training import load_run

    if model.suffix != ".safetensors":
        raise MergeError(f"{model}: merged models are safetensors files; give a name that ends in .safetensors")
    adapted = load_run(run, weights)
    config = adapt_config(adapted)
    if config is None or config.attn is config.ffn is None:
        raise MergeError(f"{run}: has no adapters to merge; expected a run of the method loaa")
    merged = merge(adapted)
    front_end = adapted.front_end
    noise = torch.randn(4, front_end.frames, front_end.mel_bins, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        difference = (merged(noise) - adapted(noise)).abs().max().item()
    save_merged(merged, model)
    print(f"{model}: {model.stat().st_size / 1e6:.1f} MB, without adapters")
    print(f"largest difference of the logits on noise: {difference:.1e}")
