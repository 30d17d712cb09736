"""What only Triton's interpreter can show: every load and store of every element, counted.

This is how "one pass" is known without a GPU, and that nothing outside the tensors is touched. On a machine with a GPU
this file runs under the interpreter too (see tests/test_kernels.py).
"""

import pytest
import torch
from kernel_cases import KERNELS, Case, results
from torch import Tensor
from traffic import Traffic, assert_each, counted

from fastloaa.functional import BackendError


def traffic(case: Case) -> list[Traffic]:
    with counted() as launches:
        results(case, case.inputs(torch.float16), "triton")
    assert len(launches) == 3, "one launch forward, one for x's gradient, one for the weights'"
    return launches


def window_loads(case: Case, block_tokens: int) -> Tensor:
    """How often the design reads each token [tokens]: once, but for the halo where a line is cut into segments."""
    along_time = case.kernel[0] == 1
    length = case.time if along_time else case.freq
    halo = 2 * (max(case.kernel) // 2)
    per_position = torch.ones(length, dtype=torch.int64)
    if length > block_tokens:
        per_position.zero_()
        for owned in range(0, length, block_tokens - 2 * halo):
            per_position[max(owned - halo, 0) : owned - halo + block_tokens] += 1
    grid = per_position.expand(case.freq, -1) if along_time else per_position[:, None].expand(-1, case.time)
    patches = grid.flatten() if case.order == "freq" else grid.t().flatten()
    return torch.cat((torch.ones(case.prefix, dtype=torch.int64), patches))


def neighbours(case: Case) -> Tensor:
    """How many tokens have each token in reach of the kernel [tokens]."""
    along_time = case.kernel[0] == 1
    length, reach = (case.time if along_time else case.freq), max(case.kernel) // 2
    place = torch.arange(length)
    per_position = 1 + place.clamp(max=reach) + (length - 1 - place).clamp(max=reach)
    grid = per_position.expand(case.freq, -1) if along_time else per_position[:, None].expand(-1, case.time)
    patches = grid.flatten() if case.order == "freq" else grid.t().flatten()
    return torch.cat((torch.ones(case.prefix, dtype=torch.int64), patches))


CASES = [
    *(Case(4, 9, kernel, 2, "freq", 2, 32, 6) for kernel in KERNELS),
    Case(5, 7, (1, 3), 3, "time", 3, 32, 6, mask=True, bias=True),
    Case(8, 25, (3, 1), 0, "freq", 1, 48, 36, mask=True, bias=True, strided=True),
    Case(12, 101, (1, 3), 2, "freq", 1, 16, 72),  # lines of 101 in tiles of 32: cut, with a halo
    Case(2, 300, (1, 7), 1, "time", 1, 16, 3),  # and in tiles of 128
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_moves_everything_once(case: Case) -> None:
    forward = traffic(case)[0]
    programs = forward.launch.programs[0]
    read = window_loads(case, forward.launch.arguments["BT"])
    assert_each(forward.loads("p_x"), read)
    for summand in ("p_block", "p_skip"):
        assert_each(forward.loads(summand), 1)
    for result in ("p_out", "p_pre"):
        assert_each(forward.stores(result), 1)
        assert_each(forward.loads(result), 0)
    for weight in ("p_down", "p_up"):
        assert_each(forward.loads(weight), programs)
    if case.mask:
        assert_each(forward.loads("p_mask"), read)
    stored = {name for name in forward.tensors if forward.stores(name).any()}
    assert stored == {"p_out", "p_pre"}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_input_gradient_moves_everything_once(case: Case) -> None:
    backward = traffic(case)[1]
    read = window_loads(case, backward.launch.arguments["BT"])
    for name in ("p_dy", "p_pre", *(["p_mask"] if case.mask else [])):
        assert_each(backward.loads(name), read)
    for result in ("p_dx", "p_dpre"):
        assert_each(backward.stores(result), 1)
        assert_each(backward.loads(result), 0)
    for weight in ("p_down", "p_up"):
        assert_each(backward.loads(weight), backward.launch.programs[0])
    assert {name for name in backward.tensors if backward.stores(name).any()} == {"p_dx", "p_dpre"}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_weight_gradients_read_x_and_dy_once_for_each_block_of_columns(case: Case) -> None:
    weights = traffic(case)[2]
    _, channel_blocks, column_blocks = weights.launch.programs
    columns = case.rank * max(case.kernel)
    assert column_blocks == -(-columns // weights.launch.arguments["BC"])
    for name in ("p_x", "p_dy"):
        assert_each(weights.loads(name), column_blocks)
    for name in ("p_pre", "p_dpre"):
        assert_each(weights.loads(name), neighbours(case) * channel_blocks)
    for name in ("p_ddown", "p_dup"):
        assert_each(weights.stores(name), 1)


def test_inference_stores_the_result_alone() -> None:
    case = Case(8, 25)
    inputs = case.inputs(torch.float16)
    with counted() as launches, torch.no_grad():
        case.call(inputs, "triton")
    (forward,) = launches
    assert "p_pre" not in forward.tensors
    assert_each(forward.stores("p_out"), 1)


def test_bytes_of_the_papers_shape() -> None:
    """Grid 8x64 with cls and dist, r = 36, 3 taps along time: no halo, so x, summands, result and pre move once."""
    case = Case(8, 64, (1, 3), 2, "freq", 1, 64, 36)
    forward = traffic(case)[0]
    wide, narrow, weight = case.tokens * case.dim, case.tokens * case.rank, 3 * case.rank * case.dim
    assert forward.bytes() == 2 * (4 * wide + narrow + 2 * weight * forward.launch.programs[0])


def test_the_halo_of_the_longest_lines() -> None:
    """512 time steps in tiles of 128 with 3 taps: 124 are a tile's own, so 5 tiles share a line and re-read 4 x 4."""
    case = Case(2, 512, (1, 3), 0, "freq", 1, 16, 36)
    forward = traffic(case)[0]
    assert forward.launch.arguments["BT"] == 128
    assert int(forward.loads("p_x").sum()) == 2 * (512 + 4 * 4) * 16


@pytest.mark.usefixtures("plain_interpreter")
def test_bfloat16_is_refused_with_the_reason() -> None:
    case = Case()
    with pytest.raises(BackendError, match=r"interpreter computes wrongly with torch\.bfloat16; use backend="):
        case.call(case.inputs(torch.bfloat16), "triton")
