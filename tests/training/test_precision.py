"""Precisions by name."""

import pytest
import torch

from fastloaa.training import OptionError
from fastloaa.training.precision import autocast, resolve_precision
from fastloaa.training.recipe import Precision

CPU = torch.device("cpu")


def test_resolution(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_precision("auto", CPU) == "fp32"
    assert resolve_precision("bf16", CPU) == "bf16"
    for supported, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, answer=supported: answer)
        assert resolve_precision("auto", torch.device("cuda")) == expected
    assert resolve_precision("fp16", torch.device("cuda")) == "fp16"
    with pytest.raises(OptionError, match='"fp16" needs a CUDA device, this runs on cpu'):
        resolve_precision("fp16", CPU)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_matrix_products_run_in_it(precision: Precision, dtype: torch.dtype) -> None:
    with autocast(precision, CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
