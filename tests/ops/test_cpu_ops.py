"""The pass between a merged model's widened Linears on CPU tensors, where it is PyTorch's own operations."""

import pytest
import torch
import torch.nn.functional as F

from fastloaa.ops.widened import widened_activation_, widened_op

GELUS = {"gelu": "none", "gelu_tanh": "tanh"}


def test_by_hand() -> None:
    """One row of four time steps after a prefix token, one hidden row, three taps, relu; padding of one column."""
    prefix, clip = [1.0, -2.0, 3.0], [[1.0, 2.0, 3.0], [-4.0, 5.0, -6.0], [7.0, -8.0, 9.0], [-1.0, 2.0, 1.0]]
    buffer = torch.tensor([[[-1.0, 1.0, *row, 77.0] for row in (prefix, *clip)]])
    widened_activation_(buffer, 2, 1, 1, 3, 1, 1, False, "relu", "")
    # At each step the left tap of the one before, the centre tap of its own, the right tap of the one after.
    hidden = [2.0 - 6.0, 1.0 + 5.0 + 9.0, -4.0 - 8.0 + 1.0, 7.0 + 2.0]
    a, b, c, d = (max(value, 0.0) for value in hidden)
    expected = [[0.0, 0.0, 0.0], [0.0, a, b], [a, b, c], [b, c, d], [c, d, 0.0]]  # the prefix's centre is -2
    assert buffer[0].tolist() == [[-1.0, 1.0, *row, 77.0] for row in expected]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("wide_activation", ["gelu", "gelu_tanh", "relu", "silu", ""])
def test_own_columns(wide_activation: str, dtype: torch.dtype) -> None:
    """In place in a window of a wider tensor, whatever its dtype."""
    wider = torch.randn(2, 9, 40, dtype=dtype)
    before, buffer = wider.clone(), wider[:, 1:, 3:30]
    widened_activation_(buffer, 12, 3, 3, 1, 2, 2, True, "gelu", wide_activation)
    own = before[:, 1:, 3:15].double()
    if wide_activation in GELUS:
        own = F.gelu(own, approximate=GELUS[wide_activation])
    elif wide_activation:
        own = getattr(F, wide_activation)(own)
    torch.testing.assert_close(buffer[..., :12], own.to(dtype))
    changed = wider != before
    assert not changed[:, 0].any()
    assert not changed[..., :3].any()
    assert not changed[..., 3 + 12 + 9 :].any()
    assert changed[:, 1:, 15:24].any()


def test_square_kernels_are_taken() -> None:
    """Only the Triton kernel is one-dimensional. One patch, so that eight of nine taps look outside the grid."""
    buffer = torch.randn(1, 1, 18, dtype=torch.float64)
    centre = buffer[..., 8:10].clone()
    widened_activation_(buffer, 0, 2, 3, 3, 1, 0, False, "silu", "")
    expected = torch.zeros(1, 1, 18, dtype=torch.float64)
    expected[..., 8:10] = F.silu(centre)
    torch.testing.assert_close(buffer, expected)


def test_opcheck() -> None:
    torch.library.opcheck(widened_op, (torch.randn(2, 14, 30), 12, 5, 1, 3, 4, 2, False, "gelu", "gelu"))


WRONG = {
    "too narrow": ((2, 14, 26), {}, r"12 columns and 3 taps \* 5 hidden rows do not fit .*expected .* at least 27\]"),
    "no tokens": ((14, 27), {}, r"a buffer of shape \(14, 27\); expected \[batch, tokens, at least 27\]"),
    "no hidden rows": ((2, 14, 27), {"rank": 0}, r"3 taps \* 0 hidden rows do not fit"),
    "another grid": ((2, 14, 27), {"freq_bins": 5}, r"14 tokens with prefix_tokens=2 leave 12 patches"),
    "activation": ((2, 14, 27), {"activation": ""}, r"activations are of gelu, .*; got '' and 'gelu'"),
    "wide activation": ((2, 14, 27), {"wide_activation": "tanh"}, r"may be empty; got 'gelu' and 'tanh'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused_in_one_line(name: str) -> None:
    shape, changes, message = WRONG[name]
    arguments = {"start": 12, "rank": 5, "kf": 1, "kt": 3, "freq_bins": 4, "prefix_tokens": 2, "time_major": False}
    activations = {"activation": "gelu", "wide_activation": "gelu"}
    buffer = torch.ones(shape)
    with pytest.raises(ValueError, match=message) as error:
        widened_activation_(buffer, **(arguments | activations | changes))  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    assert (buffer == 1).all()


def test_gradients_are_refused_rather_than_wrong() -> None:
    buffer = torch.randn(1, 4, 27, requires_grad=True) * 1.0
    arguments = (12, 5, 1, 3, 2, 0, False, "gelu", "gelu")
    with pytest.raises(RuntimeError, match=r"has no gradient; run the merged model under torch.no_grad\(\)"):
        widened_activation_(buffer, *arguments)
    with torch.no_grad():
        widened_activation_(buffer, *arguments)
