"""What only Triton's interpreter can show: every load and store of every element, counted.

This is how "one pass" is known without a GPU, and that nothing outside the tensors is touched. On a machine with a GPU
this file runs under the interpreter too (see tests/test_kernels.py).
"""

import numpy as np
import pytest
import torch
from kernel_cases import KERNELS, Case, results
from torch import Tensor
from traffic import Traffic, assert_each, counted
from triton.runtime.interpreter import interpreter_builder

from fastloaa.kernels import launchable
from fastloaa.ops.functional import BackendError


def traffic(case: Case) -> list[Traffic]:
    with counted() as launches:
        results(case, case.inputs(torch.float16), "triton")
    assert len(launches) == 4, "one launch forward, one for x's gradient, one for the weights' and one for their sums"
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


def assert_written_once(launch: Traffic, result: str, reads: int) -> None:
    """The result is written once; before that, rows of several taps meet in its first columns or in a scratch."""
    arguments = launch.launch.arguments
    sent = torch.zeros(arguments["D"], dtype=torch.int64)
    if arguments["TAPS"] > 1 and arguments["whole"]:
        assert arguments["p_rows"] is arguments[result]
        sent[: arguments["KP"] + arguments["R"]] = 1
    assert torch.equal(launch.stores(result), (1 + sent).expand_as(launch.stores(result)))
    assert not launch.loads(result)[..., sent == 0].any()
    if arguments["TAPS"] > 1 and not arguments["whole"]:
        rows = launch.stores("p_rows")
        sent = rows[:, 0] > 0  # what of a tile is no token is not
        assert sent.sum() == reads
        assert_each(rows[sent, : arguments["KP"] + arguments["R"]], 1)
        assert not rows[~sent].any()
        assert not rows[:, arguments["KP"] + arguments["R"] :].any()
        assert not launch.loads("p_rows")[rows == 0].any()


def stored(launch: Traffic) -> set[str]:
    return {name for name in launch.tensors if launch.stores(name).any()} - {"p_rows"}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_everything_moves_once(case: Case) -> None:
    forward, backward, weights, sums = traffic(case)
    read = window_loads(case, forward.launch.arguments["BT"])
    for name in ("p_x", *(["p_mask"] if case.mask else [])):
        assert_each(forward.loads(name), read)
    for summand in ("p_block", "p_skip"):
        assert_each(forward.loads(summand), 1)
    assert_each(forward.stores("p_pre"), 1)
    assert_written_once(forward, "p_out", case.batch * int(read.sum()))
    assert stored(forward) == {"p_out", "p_pre"}

    read = window_loads(case, backward.launch.arguments["BT"])
    for name in ("p_dy", "p_pre", *(["p_mask"] if case.mask else [])):
        assert_each(backward.loads(name), read)
    for result in ("p_dpre", "p_hidden"):
        assert_each(backward.stores(result), 1)
    assert_written_once(backward, "p_dx", case.batch * int(read.sum()))
    assert stored(backward) == {"p_dx", "p_dpre", "p_hidden"}

    for launch in (forward, backward):
        for weight in ("p_down", "p_up"):
            assert_each(launch.loads(weight), launch.launch.programs[0])

    # x and dy once for each block of columns, the narrow rows once for each neighbour and block of channels.
    _, blocks, column_blocks = weights.launch.programs
    assert column_blocks == -(-case.rank * max(case.kernel) // weights.launch.arguments["BC"])
    for name in ("p_x", "p_dy"):
        assert_each(weights.loads(name), column_blocks)
    for name in ("p_hidden", "p_dpre"):
        assert_each(weights.loads(name), neighbours(case) * (blocks // 2))
    assert_each(weights.stores("p_partial"), 1)
    assert_each(sums.loads("p_partial"), 1)
    for gradient in ("p_ddown", "p_dup"):
        assert_each(sums.stores(gradient), 1)


@pytest.mark.parametrize(
    "case",
    [
        Case(4, 9, (1, 3), 2, "freq", 2, 64, 6),  # rows meet in the result
        Case(4, 9, (3, 1), 2, "time", 2, 16, 6),  # in a scratch, the result being narrow
        Case(2, 300, (1, 7), 1, "time", 1, 64, 3),  # in a scratch, since segments overlap
    ],
    ids=str,
)
def test_no_program_reads_what_another_writes(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter runs programs one after the other; on a GPU they run at once, and rows meet in memory."""
    owner: dict[int, int] = {}

    def count(self: Traffic, kind: str, pointers, mask) -> None:  # type: ignore[no-untyped-def]
        program = interpreter_builder.grid_idx[0]
        if kind == "stores":
            own = dict.fromkeys(pointers.data[mask.data].ravel().tolist(), program)
            assert all(owner.setdefault(address, program) == program for address in own)
        else:
            read = pointers.data[np.broadcast_to(mask.data, pointers.data.shape)].ravel().tolist()
            assert all(owner.get(address, program) == program for address in read)

    monkeypatch.setattr(Traffic, "count", count)
    run = launchable.Launch.run

    def run_tile(launch: launchable.Launch) -> None:
        owner.clear()
        if "p_rows" in launch.arguments:
            assert launch.programs[0] > 1
            run(launch)

    monkeypatch.setattr(launchable.Launch, "run", run_tile)
    with counted():
        results(case, case.inputs(torch.float16), "triton")


def test_inference_stores_the_result_alone() -> None:
    case = Case(8, 25)
    inputs = case.inputs(torch.float16)
    with counted() as launches, torch.no_grad():
        case.call(inputs, "triton")
    (forward,) = launches
    assert "p_pre" not in forward.tensors
    assert_each(forward.stores("p_out"), 1)


def test_bytes_of_the_papers_shape() -> None:
    """Grid 8x64 with cls and dist, r = 36, 3 taps along time: no halo, so x, summands, result and pre move once.

    What crosses between the rows of a program stays in cache: each packed column and hidden row is sent once, and
    read once by each neighbour.
    """
    case = Case(8, 64, (1, 3), 2, "freq", 1, 64, 36)
    forward = traffic(case)[0]
    wide, narrow, weight = case.tokens * case.dim, case.tokens * case.rank, 3 * case.rank * case.dim
    moved = 4 * wide + narrow + 2 * weight * forward.launch.programs[0]
    crossing = int(forward.stores("p_rows").sum() + forward.loads("p_rows").sum())
    assert crossing == case.tokens * (128 + 36) + 2 * int(neighbours(case).sum()) * case.rank
    assert forward.bytes() == 2 * (moved + crossing)


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
