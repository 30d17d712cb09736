"""Backbone weights from files, fitted to a spectrogram: colour channels summed, position embedding cut or stretched."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastloaa.files import FileError, read_safetensors
from fastloaa.models.layouts import WeightsError, to_timm


def read_backbone(path: str | Path) -> tuple[dict[str, Tensor], tuple[int, int] | None]:
    """State dict of a timm ViT from a file, and the (frequency, time) grid of its position embedding if it says so.

    Reads a model saved by `AST.save` (its head left out), timm's own safetensors, and .pth / .pt / .bin state dicts
    (weights only, no code is run), bare or under "model" or "state_dict", with timm's names or those that `to_timm`
    knows: AST's own checkpoints and SSAST's.

    Raises:
        FileError: missing or unreadable.
        WeightsError: an adapter file, no state dict, or one of a model that a timm ViT cannot express.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        tensors, metadata = read_safetensors(path)
        grid = metadata.get("grid")
        if metadata.get("kind") == "model":
            prefix = "backbone."
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        elif metadata:
            raise WeightsError(
                f"{path}: holds {metadata.get('kind')!r}, not a backbone; for an adapter use load_adapter(model, path)"
            )
        return (tensors, (grid["freq_bins"], grid["time_steps"])) if grid else _renamed(tensors, path)
    if not path.is_file():
        raise FileError(f'{path}: no such weights file; give a .safetensors or .pth file, "timm", or None')
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the unpickler makes of a file that is not one
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileError(f"{path}: not a PyTorch state dict ({reason}); give a .safetensors or .pth file") from error
    for wrapper in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path}: holds no state dict of tensors; save it as torch.save(model.state_dict(), path)")
    return _renamed(state, path)


def _renamed(state: dict[str, Tensor], path: Path) -> tuple[dict[str, Tensor], tuple[int, int] | None]:
    try:
        return to_timm(state)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error


def fit_patch_weight(weight: Tensor, patch: tuple[int, int]) -> Tensor:
    """[dim, channels, kf, kt] -> [dim, 1, kf, kt]: colour channels are summed, as AST does.

    Raises:
        WeightsError: another patch size.
    """
    if tuple(weight.shape[2:]) != patch:
        raise WeightsError(
            f"the weights were trained with patches of {tuple(weight.shape[2:])}, the model has {patch}; "
            f"build it with patch={tuple(weight.shape[2:])}"
        )
    return _widened(weight).sum(dim=1, keepdim=True)


def fit_position_embedding(
    embedding: Tensor, source: tuple[int, int] | None, target: tuple[int, int], prefix_tokens: int
) -> Tensor:
    """Position embedding of another grid, along time first, then along frequency: cut from the centre where the new
    axis is shorter, stretched bilinearly where it is longer (AST, `ast_models.py`).

    Args:
        embedding: [1, prefix_tokens + source patches, dim].
        source, target: (frequency, time) grids; source None means square, as ImageNet models are, else the target.
        prefix_tokens: leading tokens that have an embedding of their own.

    Returns:
        [1, prefix_tokens + target patches, dim].

    Raises:
        WeightsError: the embedding is not of the source grid.
    """
    patches = embedding.shape[1] - prefix_tokens
    if source is None:
        side = round(max(patches, 0) ** 0.5)
        source = (side, side) if side * side == patches else target
    if patches < 1 or source[0] * source[1] != patches:
        raise WeightsError(
            f"the position embedding has {embedding.shape[1]} tokens, {patches} after {prefix_tokens} prefix tokens, "
            f"which is no {source[0]} x {source[1]} grid; choose the backbone that the weights belong to"
        )
    embedding = _widened(embedding)
    image = embedding[:, prefix_tokens:].unflatten(1, source).permute(0, 3, 1, 2)  # [1, dim, F, T]
    for axis, size in ((3, target[1]), (2, target[0])):
        length = image.shape[axis]
        if size <= length:
            image = image.narrow(axis, length // 2 - size // 2, size)
        else:
            stretched = (image.shape[2], size) if axis == 3 else (size, image.shape[3])
            image = F.interpolate(image, size=stretched, mode="bilinear")
    return torch.cat((embedding[:, :prefix_tokens], image.permute(0, 2, 3, 1).flatten(1, 2)), dim=1)


def _widened(tensor: Tensor) -> Tensor:
    """In float32 or wider: sums and stretches of weights stored in half precision would be rounded to it."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
