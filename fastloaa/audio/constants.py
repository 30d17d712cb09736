"""Tensors that follow from a module's settings."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from typing_extensions import Self


class Constants(nn.Module):
    """A module with constants in float32: no entries in the state dict, no casts, and values on any way to a device.

    Built on the device "meta" they have none; they come when the module leaves it by `to_empty`, or meets a tensor
    that is elsewhere, as after `load_state_dict(..., assign=True)`, which knows nothing of them.
    """

    def constants(self) -> dict[str, Tensor]:
        """The constants by name, from the module's settings alone."""
        raise NotImplementedError

    def register_constants(self) -> dict[str, Tensor]:
        """To be called by the constructor, after the settings; returns the values, on the CPU."""
        values = self._computed()
        device = torch.empty(0).device  # before torch 2.7 get_default_device knows of no `with torch.device(...)`
        for name, value in values.items():
            self.register_buffer(name, value.to(device), persistent=False)
        return values

    def _computed(self) -> dict[str, Tensor]:
        with torch.device("cpu"):
            return self.constants()

    def meet(self, tensor: Tensor) -> None:
        """Take values where the module has none and `tensor` has."""
        if not tensor.is_meta and any(buffer.is_meta for buffer in self.buffers(recurse=False)):
            self.to_empty(device=tensor.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follow the model to another device, but stay float32 when it is cast to half precision."""
        for name, buffer in list(self.named_buffers(recurse=False)):
            device = fn(buffer).device
            value = self._computed()[name] if buffer.is_meta and device.type != "meta" else buffer
            setattr(self, name, value.to(device))
        return self
