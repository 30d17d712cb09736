"""Autocast, on any device: PyTorch's own functions raise for those that do not have it, as "meta"."""

from contextlib import AbstractContextManager, nullcontext

import torch


def _available(device_type: str) -> bool:
    return torch.amp.is_autocast_available(device_type)


# As torch.compiler.assume_constant_result does, which imports all of Dynamo to do so: as long again as import torch.
_available._dynamo_marked_constant = True  # type: ignore[attr-defined]


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """What autocast casts to on this type of device, None where it is off."""
    if _available(device_type) and torch.is_autocast_enabled(device_type):
        return torch.get_autocast_dtype(device_type)
    return None


def without_autocast(device_type: str) -> AbstractContextManager[object]:
    """A context in which autocast is off."""
    return torch.autocast(device_type, enabled=False) if _available(device_type) else nullcontext()
