"""A launch: a kernel with its programs, arguments and setting; and how it starts."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastloaa.kernels.configs import Setting


class Launch:
    """A kernel, its programs, its arguments by name, and its setting."""

    __slots__ = ("arguments", "compiled", "kernel", "programs", "setting", "tensors")

    def __init__(
        self,
        kernel: Any,
        programs: tuple[int, ...],
        arguments: dict[str, Any],
        setting: Setting,
        compiled: dict[str, Any] | None = None,
        tensors: Sequence[Tensor] | None = None,
    ) -> None:
        self.kernel, self.programs, self.arguments, self.setting = kernel, programs, arguments, setting
        # Shared by all launches that differ in tensors alone, and filled by the first of them.
        self.compiled: dict[str, Any] = {} if compiled is None else compiled
        self.tensors = [t for t in arguments.values() if isinstance(t, Tensor)] if tensors is None else tensors

    def with_arguments(self, arguments: dict[str, Any], tensors: Sequence[Tensor]) -> "Launch":
        """The same launch on other tensors; all else, their layouts and the order of arguments are as before."""
        return Launch(self.kernel, self.programs, arguments, self.setting, self.compiled, tensors)

    @property
    def compile_options(self) -> dict[str, int]:
        options = {"num_warps": self.setting.warps, "num_stages": self.setting.stages}
        return options | ({"maxnreg": self.setting.registers} if self.setting.registers else {})

    def run(self) -> None:
        """Launch on the device of the tensors, which need not be the current one, in its current stream."""
        addresses = 0
        for tensor in self.tensors:
            addresses |= tensor.data_ptr()
        aligned = not addresses % ALIGNMENT
        device = self.tensors[0].device
        if device.type == "cuda" and device.index != torch.cuda.current_device():
            with torch.cuda.device(device):
                start(self, aligned)
        else:
            start(self, aligned)


ALIGNMENT = 16  # bytes, on which compiled code depends


def start(launch: Launch, aligned: bool) -> None:
    """By the compiled kernel where an earlier launch left one; else by way of Triton, which looks at every argument.

    Triton compiles one kernel for pointers of 16 bytes and others for the rest: only the first is kept at hand.
    """
    compiled = launch.compiled.get("kernel") if aligned else None
    if compiled is not None:
        x, y, z = (*launch.programs, 1, 1)[:3]
        compiled[x, y, z](*launch.arguments.values())
        return
    made = launch.kernel[launch.programs](**launch.arguments, **launch.compile_options)
    if aligned and made is not None and list(launch.arguments) == launch.kernel.arg_names:
        launch.compiled["kernel"] = made
