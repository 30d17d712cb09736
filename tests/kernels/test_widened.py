"""The pass between a merged model's widened Linears: in place, against the definition in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import DEVICE, DTYPES, KERNELS, SLOW_DTYPES, relative_error, with_dtypes
from torch import Tensor
from widened_cases import Case

from fastloaa.kernels.widened_launch import LONGEST_LINE, obstacle
from fastloaa.ops.activations import ACTIVATIONS, Activation
from fastloaa.ops.shifts import offsets
from fastloaa.ops.widened import widened_activation_, widened_op

# What is written is rounded once; in float32 the sums and the activation before it are as well.
ROUNDINGS = {torch.float32: 16, torch.float16: 1.1, torch.bfloat16: 1.1}


def check(case: Case, dtype: torch.dtype) -> None:
    """The op against the definition, and that it writes nothing else."""
    buffer = case.buffer(dtype)
    before = buffer.clone()
    everything = buffer._base if case.sliced else buffer
    assert everything is not None
    untouched = everything.isnan().sum() - buffer[..., : case.end].isnan().sum()
    widened_activation_(buffer, *case.arguments)
    bound = ROUNDINGS[dtype] * torch.finfo(dtype).eps / 2
    actual = (buffer[..., : case.start], buffer[..., case.start : case.end])
    for name, got, want in zip(("wide", "adapter"), actual, case.expected(before), strict=True):
        error = relative_error(got, want)
        assert error <= bound, f"{name}: relative error {error:.1e}, allowed {bound:.1e}, {case}, {dtype}"
    outside = ~case.neighbours(offsets(*case.kernel, case.grid))
    assert not actual[1].unflatten(2, (-1, case.rank)).masked_select(outside).any(), "zeros outside the grid"
    assert everything.isnan().sum() == untouched, "padding and what lies around are left alone"
    if not case.wide_activation:
        assert torch.equal(actual[0], before[..., : case.start])


GRIDS = [(1, 1), (1, 6), (5, 7), (8, 25), (12, 101)]


@pytest.mark.parametrize(("grid", "kernel", "dtype"), with_dtypes(GRIDS, KERNELS), ids=str)
def test_grids(grid: tuple[int, int], kernel: tuple[int, int], dtype: torch.dtype) -> None:
    """Order, prefix and batch change with the case; every pair of them is in `test_any`."""
    number = GRIDS.index(grid) + KERNELS.index(kernel)
    prefix, order = (0, 1, 2, 4)[number % 4], ("freq", "time")[number % 2]
    check(Case(*grid, kernel, prefix, order, batch=1 + 2 * (number % 2), rank=3), dtype)  # type: ignore[arg-type]


@pytest.mark.parametrize("order", ["freq", "time"])
@pytest.mark.parametrize("kernel", [(1, 3), (1, 7), (3, 1)], ids=str)
def test_long_lines(kernel: tuple[int, int], order: str) -> None:
    check(Case(2, 512, kernel, 2, order, 1, rank=5), torch.float16)  # type: ignore[arg-type]


def test_the_longest_lines() -> None:
    check(Case(LONGEST_LINE, 1, (3, 1), 1, "freq", 1, 8, 3), torch.float32)
    check(Case(1, LONGEST_LINE, (1, 3), 0, "freq", 1, 8, 3), torch.float16)
    check(Case(1, LONGEST_LINE + 1, (1, 1), 0, "freq", 1, 8, 3), torch.float16)  # without neighbours any is short


@settings(max_examples=25, derandomize=True)
@given(
    freq=st.integers(1, 9),
    time=st.integers(1, 40),
    kernel=st.sampled_from(KERNELS),
    prefix=st.sampled_from([0, 1, 2, 4]),
    order=st.sampled_from(["freq", "time"]),
    batch=st.integers(1, 4),
    start=st.integers(1, 40),
    rank=st.integers(1, 40),
    wide_activation=st.sampled_from(["", "gelu"]),
    sliced=st.booleans(),
    dtype=st.sampled_from(DTYPES),
)
def test_any(
    freq: int,
    time: int,
    kernel: tuple[int, int],
    prefix: int,
    order: str,
    batch: int,
    start: int,
    rank: int,
    wide_activation: str,
    sliced: bool,
    dtype: torch.dtype,
) -> None:
    case = Case(freq, time, kernel, prefix, order, batch, start, rank, "gelu", wide_activation, sliced)  # type: ignore[arg-type]
    check(case, dtype)


@pytest.mark.parametrize(
    ("activation", "wide_activation", "dtype"), with_dtypes(ACTIVATIONS, [*ACTIVATIONS, ""]), ids=str
)
def test_activations(activation: str, wide_activation: str, dtype: torch.dtype) -> None:
    check(Case(activation=activation, wide_activation=wide_activation), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_adapter_alone(dtype: torch.dtype) -> None:
    """No columns of the block's own."""
    buffer = Case(start=0).buffer(dtype)
    alone = buffer.clone()
    widened_activation_(alone, *Case(start=0).arguments)
    widened_activation_(buffer, *Case(start=0, wide_activation="").arguments)
    torch.testing.assert_close(alone, buffer, rtol=0, atol=0, equal_nan=True)
    check(Case(rank=36, start=300, freq=8, time=9), dtype)


def test_empty_batch() -> None:
    buffer = Case(batch=0).buffer(torch.float32)
    widened_activation_(buffer, *Case().arguments)
    assert buffer.shape[0] == 0


@pytest.mark.parametrize("dtype", SLOW_DTYPES, ids=str)
@pytest.mark.parametrize(
    "case", [Case(), Case(kernel=(5, 1), order="time", prefix=2, sliced=True), Case(batch=0, wide_activation="")]
)
def test_opcheck(case: Case, dtype: torch.dtype) -> None:
    """Schema (what is written is said to be), fakes, and AOT dispatch with dynamic shapes."""
    torch.library.opcheck(widened_op, (case.buffer(dtype).nan_to_num_(), *case.arguments))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_compiles_as_one_graph(dtype: torch.dtype) -> None:
    torch._dynamo.reset()
    case = Case()

    def block(x: Tensor) -> Tensor:
        buffer = x * 2
        widened_activation_(buffer, *case.arguments)
        return buffer + 1

    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    x = case.buffer(dtype).nan_to_num_()
    torch.testing.assert_close(compiled(x), block(x))


UNFIT = {
    "a longer line": (Case(1, LONGEST_LINE + 1, batch=1), rf"lines of {LONGEST_LINE + 1} patches are longer than"),
    "a square kernel": (Case(kernel=(3, 3), rank=1), r"kernel \(3, 3\) is not one-dimensional of at most 7 taps"),
    "nine taps": (Case(kernel=(1, 9), rank=1), r"kernel \(1, 9\) is not one-dimensional of at most 7 taps"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_refusals_can_be_foreseen(name: str) -> None:
    case, reason = UNFIT[name]
    buffer = torch.zeros(case.batch, case.grid.tokens, 60, device=DEVICE)
    foreseen = obstacle(buffer, *case.kernel, case.freq, case.prefix)
    assert foreseen is not None
    with pytest.raises(ValueError, match=f"widened_activation_ cannot run: {reason}") as error:
        widened_activation_(buffer, *case.arguments)
    assert foreseen in str(error.value)
    assert "\n" not in str(error.value)
    assert not buffer.any()


def test_float64_and_columns_apart_are_refused() -> None:
    case, buffer = Case(), torch.zeros(2, 16, 60, device=DEVICE)
    assert obstacle(buffer, *case.kernel, case.freq, case.prefix) is None
    for unfit, reason in [
        (buffer.double(), "torch.float64 is not float32, float16 or bfloat16"),
        (buffer[..., ::2], "columns lie 2 elements apart in memory, not 1"),
    ]:
        assert obstacle(unfit, *case.kernel, case.freq, case.prefix) == reason


@pytest.mark.parametrize("which", ["activation", "wide_activation"])
def test_an_activation_without_a_formula_is_refused(which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ACTIVATIONS, "tanh", Activation(torch.tanh, torch.ops.aten.tanh_backward))
    case = Case(**{which: "tanh"})
    buffer = torch.zeros(case.batch, case.grid.tokens, 60, device=DEVICE)
    activations = (case.activation, case.wide_activation)
    assert obstacle(buffer, *case.kernel, case.freq, case.prefix, activations) is not None
    with pytest.raises(ValueError, match="cannot run: activation 'tanh' has no formula in the kernels"):
        widened_activation_(buffer, *case.arguments)
