"""What goes wrong in large tensors, in odd numbers and between clips, where small ones look right."""

import numpy as np
import pytest
import torch
from kernel_cases import DEVICE, Case, draw, exact, relative_error, results
from torch import Tensor

from fastloaa.kernels import configs
from fastloaa.kernels.remembered import forget

APART = 2**30 + 64  # elements from clip to clip: a 32-bit number, whose product with the third clip's is none


def far_apart(tensor: Tensor) -> Tensor:
    """The same numbers, clips so far apart that 32-bit offsets fall short; memory between them is never touched."""
    batch, tokens, dim = tensor.shape
    elements = (batch - 1) * APART + tokens * dim
    if DEVICE == "cpu":  # PyTorch would fill it, as tests have it do
        bits = torch.from_numpy(np.empty(elements, np.int16 if tensor.dtype.itemsize == 2 else np.int32))
        storage = bits.view(tensor.dtype)
    else:
        storage = torch.zeros(elements, dtype=tensor.dtype, device=DEVICE)
    return storage.as_strided(tensor.shape, (APART, dim, 1)).copy_(tensor.detach())


@pytest.mark.parametrize("name", ["x", "block_out", "skip", "gradient"])
def test_offsets_take_64_bits(name: str) -> None:
    case, dtype = Case(batch=3), torch.float16
    inputs = {key: tensor.detach() for key, tensor in case.inputs(dtype).items()}
    grad = draw((case.batch, case.tokens, case.dim), 9).to(dtype)
    wanted = {key: tensor.requires_grad_() for key, tensor in inputs.items()}
    expected = results(case, wanted, "triton", grad)
    far = dict(wanted)
    if name == "gradient":
        grad = far_apart(grad)
    else:
        far[name] = far_apart(inputs[name]).requires_grad_()
    for key, tensor in results(case, far, "triton", grad).items():
        assert torch.equal(tensor, expected[key]), key


def test_clips_of_more_tokens_than_32_bits_hold_the_square_of(monkeypatch: pytest.MonkeyPatch) -> None:
    case, dtype = Case(freq=2, time=23200, kernel=(3, 1), batch=1, rank=2, summands=0), torch.float16
    if DEVICE == "cpu":  # the interpreter takes as long for a large tile as for a small one
        large = (configs.Setting(block_tokens=4096, block_channels=16, warps=4, stages=1),)
        monkeypatch.setitem(configs.INSTALLED, 90, {(kernel, 2, 2, 128): large for kernel in configs.KERNELS})
        forget()
    inputs = case.inputs(dtype)
    actual = results(case, inputs, "triton")
    for name, want in results(case, exact(inputs), "reference").items():
        assert relative_error(actual[name], want) < 2e-3, name


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("kernel", [(1, 3), (3, 1), (1, 1)], ids=str)
@pytest.mark.parametrize("name", ["x", "block_out", "skip"])
def test_a_clip_that_is_not_finite_spoils_no_other(name: str, kernel: tuple[int, int], bad: float) -> None:
    """Clips share tiles, and padding of tiles and columns is multiplied: by zeros that must not meet NaN."""
    case = Case(kernel=kernel, batch=3)
    inputs = {key: tensor.detach() for key, tensor in case.inputs(torch.float32).items()}
    inputs[name][1] = bad
    expected = case.call(exact(inputs), "reference")
    actual = case.call(inputs, "triton")
    for clip in (0, 2):
        assert relative_error(actual[clip], expected[clip]) < 1e-5
    assert not actual[1].isfinite().any() or name == "x"


@pytest.mark.parametrize("kernel", [(1, 3), (3, 1)], ids=str)
def test_gradients_of_a_clip_that_is_not_finite_spoil_no_other(kernel: tuple[int, int]) -> None:
    """Of x; the weights' are sums over all clips."""
    case = Case(kernel=kernel, batch=3)
    inputs = case.inputs(torch.float32)
    grad = draw((case.batch, case.tokens, case.dim), 9).float()
    grad[1] = torch.nan
    expected = results(case, exact(inputs), "reference", grad)["x"]
    actual = results(case, inputs, "triton", grad)["x"]
    assert actual[1].isnan().any()
    for clip in (0, 2):
        assert relative_error(actual[clip], expected[clip]) < 1e-5


def test_weights_of_masked_columns_may_be_anything() -> None:
    """What lies behind the weights in memory is read by no launch, or multiplied by nothing."""
    case = Case(rank=5)
    inputs = {key: tensor.detach() for key, tensor in case.inputs(torch.float32).items()}
    expected = case.call(inputs, "triton")
    for name in ("down_weight", "up_weight"):
        weight = inputs[name].contiguous(memory_format=torch.channels_last)
        behind = torch.full((weight.numel() + 4096,), torch.nan, device=DEVICE)
        behind[1024 : 1024 + weight.numel()] = weight.permute(0, 2, 3, 1).reshape(-1)
        inputs[name] = behind.as_strided(weight.shape, weight.stride(), 1024)
    assert torch.equal(case.call(inputs, "triton"), expected)
