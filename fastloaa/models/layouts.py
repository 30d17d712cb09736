"""State dicts as other audio transformers save them, renamed for a timm ViT."""

from collections.abc import Mapping

from torch import Tensor

from fastloaa.errors import FastloaaError
from fastloaa.grid import TokenGrid


class WeightsError(FastloaaError, ValueError):
    """A weights file that does not fit the model."""


def to_timm(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[int, int] | None]:
    """State dict of a timm ViT, and the (frequency, time) grid of its position embedding where the layout says it.

    Knows, besides timm's own names: AST and SSAST (Gong et al., `module.v.*` of a model in DataParallel, or `v.*`
    without); their heads and SSAST's pretext layers are left out.

    Raises:
        WeightsError: MAE-AST, which a timm ViT cannot express.
    """
    if any(key.startswith("encoder.layers.") for key in state):
        raise WeightsError(
            "fairseq's names (encoder.layers.*), as MAE-AST has them: its published models normalise after each "
            "residual sum and timm's ViT before, so the weights would compute something else; use SSAST or AST weights"
        )
    state = {key.removeprefix("module."): value for key, value in state.items()}
    if "v.pos_embed" not in state:
        return dict(state), None
    backbone = {key.removeprefix("v."): value for key, value in state.items() if key.startswith("v.")}
    return backbone, _source_grid(state, backbone)


def _source_grid(state: Mapping[str, Tensor], backbone: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """Grid of the position embedding of AST or SSAST; None if it is not of their pretraining."""
    patch_f, patch_t = backbone["patch_embed.proj.weight"].shape[2:]
    if "p_input_fdim" in state:  # SSAST's pretraining notes the size of its spectrograms; its patches never overlap
        grid = TokenGrid.from_spectrogram(int(state["p_input_fdim"]), int(state["p_input_tdim"]), (patch_f, patch_t))
        return grid.freq_bins, grid.time_steps
    # AST's AudioSet models all read 128 x 1024 and differ in the stride, 10 to 16, alike on both axes.
    patches = backbone["pos_embed"].shape[1] - sum(key in backbone for key in ("cls_token", "dist_token"))
    for stride in range(10, 17):
        grid = TokenGrid.from_spectrogram(128, 1024, (patch_f, patch_t), stride)
        if grid.patches == patches:
            return grid.freq_bins, grid.time_steps
    return None
