"""Products against float64, whoever computes them, and who does."""

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fastloaa import LoAA
from fastloaa.ops.products import by_onednn, product

HAS_ONEDNN = torch.backends.mkldnn.is_available()


def operands(m: int, n: int, k: int, dtype: torch.dtype, transposed: bool) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(m + n + k)
    shapes = ((k, m), (k, n)) if transposed else ((m, k), (n, k))
    rows, matrix = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    return (rows.t(), matrix.t()) if transposed else (rows, matrix)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (7, 5, 3), (66, 112, 768), (108, 768, 132), (0, 4, 3), (4, 0, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("onednn", [True, False])
def test_product(m: int, n: int, k: int, dtype: torch.dtype, transposed: bool, onednn: bool) -> None:
    rows, matrix = operands(m, n, k, dtype, transposed)
    with torch.backends.mkldnn.flags(enabled=onednn):
        assert by_onednn(rows) == (onednn and HAS_ONEDNN and dtype == torch.float32 and m > 0)
        given = product(rows, matrix)
    exact = rows.double() @ matrix.double().t()
    assert given.dtype == dtype
    assert given.shape == (m, n)
    assert (
        (given - exact).abs() <= 8 * torch.finfo(dtype).eps * (rows.double().abs() @ matrix.double().abs().t())
    ).all()


@pytest.mark.parametrize("summands", [0, 1, 2])
def test_both_ways_of_adding_the_summands(summands: int) -> None:
    layer = LoAA(32, 5, "time", freq_bins=3, prefix_tokens=1, bias=True, backend="torch")
    torch.nn.init.normal_(layer.up.weight)
    x, *others = (torch.randn(2, 13, 32) for _ in range(1 + summands))
    found = []
    for onednn in (True, False):
        kept = [tensor.clone() for tensor in others]
        with torch.backends.mkldnn.flags(enabled=onednn), torch.no_grad():
            found.append(layer(x, *others))
        assert all(map(torch.equal, kept, others))  # none is summed into
    torch.testing.assert_close(found[0], found[1])


def test_modes_that_count_operations_see_all_of_them() -> None:
    counts = []
    for backend in ("torch", "reference"):
        layer = LoAA(32, 16, "time", freq_bins=3, backend=backend)
        with FlopCounterMode(display=False) as counted:
            layer(torch.randn(2, 12, 32, requires_grad=True)).sum().backward()
        counts.append(counted.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_compilers_see_pytorchs_own_product() -> None:
    seen = []

    def look(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    rows, matrix = operands(8, 4, 16, torch.float32, False)
    torch.compile(product, backend=look, fullgraph=True)(rows, matrix)
    assert seen
    assert not any("mkldnn" in target for target in seen)
