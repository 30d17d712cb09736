"""The bytes that predictions start from, against loads and stores counted one by one.

Only the interpreter can count; on a machine with a GPU this file runs under it too (see tests/test_kernels.py).
"""

from pathlib import Path

import pytest
import torch
from kernel_cases import Case, results
from traffic import counted

BENCH = Path(__file__).parents[2] / "bench"
CASES = [
    Case(4, 9, (1, 3), 2, "freq", 2, 32, 6),
    Case(5, 7, (3, 1), 3, "time", 3, 32, 6, mask=True, bias=True),
    Case(2, 300, (1, 7), 1, "time", 1, 16, 3),  # lines in segments
    Case(3, 4, (1, 1), 0, "freq", 2, 16, 8, summands=0),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_predicted_bytes_are_those_counted(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)
    from traffic_model import name_of, tile_traffic

    with counted() as launches:
        results(case, case.inputs(torch.float16), "triton")
    tiles = [traffic for traffic in launches if name_of(traffic.launch) in ("forward", "input_grad")]
    assert len(tiles) == 2
    for traffic in tiles:
        expected = tile_traffic(traffic.launch)
        crossing = traffic.launch.arguments.get("p_rows")
        through = {"p_rows"} | {name for name, tensor in traffic.tensors.items() if tensor is crossing}
        assert expected.keys() | through >= traffic.tensors.keys()
        for name in expected.keys() - through:
            moved = expected[name]
            assert (int(traffic.loads(name).sum()), int(traffic.stores(name).sum())) == (moved.loads, moved.stores), (
                name
            )
