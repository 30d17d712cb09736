"""Which number format the forward pass runs in."""

from contextlib import AbstractContextManager

import torch

from fastloaa.methods import OptionError
from fastloaa.training.recipe import Precision

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_precision(precision: Precision, device: torch.device) -> Precision:
    """ "fp32", "bf16" or "fp16" for this device; "auto" is bf16 on CUDA devices that have it in hardware, else fp32.

    Raises:
        OptionError: fp16 away from CUDA; its loss scaling is made for that.
    """
    if precision == "auto":
        has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16" if has_bf16 else "fp32"
    if precision == "fp16" and device.type != "cuda":
        raise OptionError(f'precision "fp16" needs a CUDA device, this runs on {device.type}; choose "fp32" or "bf16"')
    return precision


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """A context in which matrix products run in a resolved precision; weights and sums stay float32."""
    return torch.autocast(device.type, _DTYPES.get(precision), enabled=precision in _DTYPES)
