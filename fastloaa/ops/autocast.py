"""Autocast, on any device: PyTorch's own functions raise for those that do not have it, as "meta"."""

from contextlib import AbstractContextManager, nullcontext

import torch


@torch.compiler.assume_constant_result
def _available(device_type: str) -> bool:
    return torch.amp.is_autocast_available(device_type)


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """What autocast casts to on this type of device, None where it is off."""
    if _available(device_type) and torch.is_autocast_enabled(device_type):
        return torch.get_autocast_dtype(device_type)
    return None


def without_autocast(device_type: str) -> AbstractContextManager[object]:
    """A context in which autocast is off."""
    return torch.autocast(device_type, enabled=False) if _available(device_type) else nullcontext()
