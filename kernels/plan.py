"""Launches that were made once, made again with other tensors of the same layout.

Working a launch out (tiles, strides, settings) takes the host longer than an H100 takes for the kernel. A plan keeps
all of it but the tensors.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fastloaa.kernels.launchable import Launch


class Plan:
    """A launch without its tensors. They are found again by their names; a scratch is made anew for each launch."""

    def __init__(self, launch: Launch) -> None:
        # In the kernel's order, as its compiled form wants them.
        given = {name: launch.arguments[name] for name in launch.kernel.arg_names}
        rows = given.get("p_rows")
        # In the program's own rows of the result, or in a scratch that no caller has.
        result = next((name for name in ("p_out", "p_dx") if rows is not None and given.get(name) is rows), None)
        self.names = [name for name, t in given.items() if isinstance(t, Tensor) and (name != "p_rows" or result)]
        self.sources = [result if name == "p_rows" and result else name for name in self.names]
        self.scratch = None if rows is None or result else (tuple(rows.shape), rows.dtype, rows.device)
        template = {name: None if isinstance(value, Tensor) else value for name, value in given.items()}
        self.launch = launch.with_arguments(template, [])

    def bind(self, tensors: Mapping[str, Any]) -> Launch:
        """The launch on tensors of the layout that the plan was made for."""
        arguments, given = self.launch.arguments.copy(), [tensors[source] for source in self.sources]
        arguments.update(zip(self.names, given, strict=True))
        if self.scratch:
            shape, dtype, device = self.scratch
            arguments["p_rows"] = torch.empty(shape, dtype=dtype, device=device)
        return self.launch.with_arguments(arguments, given)
