"""What only Triton's interpreter can show of the pass in merged models: each element moves once, between no programs.

On a machine with a GPU this file runs under the interpreter too (see tests/test_kernels.py).
"""

from dataclasses import replace

import pytest
import torch
from kernel_cases import KERNELS
from traffic import Traffic, assert_each, counted
from triton.runtime.interpreter import interpreter_builder
from widened_cases import Case

from fastloaa.ops.widened import widened_activation_


@pytest.mark.usefixtures("plain_interpreter")
def test_bfloat16_is_refused_under_the_interpreter() -> None:
    buffer = torch.zeros(2, 16, 60, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=r"interpreter computes wrongly with torch\.bfloat16"):
        widened_activation_(buffer, *Case().arguments)


def traffic(case: Case) -> Traffic:
    with counted() as launches:
        widened_activation_(case.buffer(torch.float16), *case.arguments)
    (launch,) = launches
    return launch


TRAFFIC = [
    *(Case(4, 9, kernel, 2, rank=20) for kernel in KERNELS),
    Case(5, 7, (1, 3), 3, "time", 3, 300, 36),
    Case(8, 25, (3, 1), 0, rank=9, sliced=True),
    Case(12, 101, (1, 7), 2, batch=1, rank=3),
    Case(2, 300, (1, 5), 1, "time", 1, rank=3),
]


@pytest.mark.parametrize("case", TRAFFIC, ids=str)
def test_everything_moves_once(case: Case) -> None:
    """One launch; every element stored once, and loaded once if any token looks at it; none of the padding."""
    launch = traffic(case)
    loads, stores = launch.loads("p_buffer"), launch.stores("p_buffer")
    assert_each(stores[..., : case.end], 1)
    assert_each(stores[..., case.end :], 0)
    looked_at = ~case.buffer(torch.float16).isnan()
    assert torch.equal(loads, looked_at.long())


@pytest.mark.parametrize("case", TRAFFIC, ids=str)
def test_the_blocks_own_columns_stay_where_they_have_no_activation(case: Case) -> None:
    launch = traffic(replace(case, wide_activation=""))
    for counts in (launch.loads("p_buffer"), launch.stores("p_buffer")):
        assert_each(counts[..., : case.start], 0)
    assert_each(launch.stores("p_buffer")[..., case.start : case.end], 1)


@pytest.mark.parametrize("case", TRAFFIC, ids=str)
def test_no_program_reads_what_another_writes(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter runs programs one after the other; on a GPU they run at once."""
    programs: dict[str, dict[int, set[int]]] = {"loads": {}, "stores": {}}

    def count(self: Traffic, kind: str, pointers, mask) -> None:  # type: ignore[no-untyped-def]
        for address in pointers.data[mask.data].tolist():
            programs[kind].setdefault(address, set()).add(interpreter_builder.grid_idx[0])

    monkeypatch.setattr(Traffic, "count", count)
    launch = traffic(case).launch
    for address, readers in programs["loads"].items():
        assert readers == programs["stores"][address]
    if launch.programs[0] > 1:
        assert len(set.union(*programs["stores"].values())) == launch.programs[0]


def test_bytes_of_the_papers_shape() -> None:
    """Grid 8x64 with cls and dist, r = 36, 3 taps along time: two bytes in and out, but for two edges a line."""
    case = Case(8, 64, (1, 3), 2, "freq", 1, 64, 36)
    wide, narrow = 514 * 64, 514 * 108
    outside = (2 * 2 + 8 * 2) * 36  # two taps of both prefix tokens, one tap at both ends of 8 lines
    assert traffic(case).bytes() == 2 * (2 * wide + 2 * narrow - outside)
