"""Which number format the forward pass runs in."""

from contextlib import AbstractContextManager

import torch
from torch import nn

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


def freeze_in_bf16(model: nn.Module) -> None:
    """Keep the frozen weights of linear layers and convolutions in bfloat16, half the memory; in place.

    Autocast rounds these to bfloat16 at every use, so under it the model's outputs stay the same bit for bit. Norms and
    embeddings, which it does not round, stay as they are.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            for parameter in module.parameters(recurse=False):
                if not parameter.requires_grad:
                    parameter.data = parameter.data.bfloat16()
