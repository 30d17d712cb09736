"""Weights that a file stores in half precision are fitted in float32: what is stored is all that was rounded."""

import pytest
import torch

from fastloaa.models.weights import fit_patch_weight, fit_position_embedding

HALVES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])


@HALVES
def test_the_sum_over_colours(dtype: torch.dtype) -> None:
    weight = torch.randn(8, 3, 16, 16).to(dtype)
    expected = weight.double().sum(1, keepdim=True)
    torch.testing.assert_close(fit_patch_weight(weight, (16, 16)).double(), expected, rtol=1e-5, atol=1e-5)


@HALVES
def test_a_stretched_position_embedding(dtype: torch.dtype) -> None:
    embedding = torch.randn(1, 2 + 8 * 8, 16).to(dtype)
    expected = fit_position_embedding(embedding.double(), None, (8, 13), 2)
    fitted = fit_position_embedding(embedding, None, (8, 13), 2)
    torch.testing.assert_close(fitted.double(), expected, rtol=1e-5, atol=1e-5)
