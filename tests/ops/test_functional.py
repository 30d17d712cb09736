"""The backends agree with each other and with a LoAA written out token by token."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fastloaa import LoAA
from fastloaa.errors import ArgumentError
from fastloaa.grid import TokenGrid
from fastloaa.ops.functional import BackendError, choose_backend, loaa

GRIDS = [(8, 64), (8, 25), (12, 101), (1, 1), (5, 7)]
KERNELS = [(1, 1), (1, 3), (3, 1), (1, 7), (5, 1), (3, 3)]


def by_hand(x: Tensor, down: Tensor, up: Tensor, grid: TokenGrid) -> Tensor:
    """LoAA from its definition, one token and one tap at a time; no convolution, no reshape."""
    _, _, kf, kt = down.shape
    position = {}  # token -> (f, t)
    for f, t in itertools.product(range(grid.freq_bins), range(grid.time_steps)):
        patch = f * grid.time_steps + t if grid.token_order == "freq" else t * grid.freq_bins + f
        position[grid.prefix_tokens + patch] = (f, t)
    token_at = {place: token for token, place in position.items()}

    def convolve(rows: Tensor, weight: Tensor) -> Tensor:
        out = []
        for token in range(grid.tokens):
            total = torch.zeros(rows.shape[0], weight.shape[0], dtype=rows.dtype)
            for a, b in itertools.product(range(kf), range(kt)):
                df, dt = a - kf // 2, b - kt // 2
                if token in position:
                    f, t = position[token]
                    neighbour = token_at.get((f + df, t + dt))
                else:
                    neighbour = token if (df, dt) == (0, 0) else None
                if neighbour is not None:
                    total = total + rows[:, neighbour] @ weight[:, :, a, b].T
            out.append(total)
        return torch.stack(out, 1)

    hidden = convolve(x, down)
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return convolve(hidden, up)


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("order", ["freq", "time"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_equals_the_definition(backend: str, order: str, kernel: tuple[int, int]) -> None:
    grid = TokenGrid(3, 4, prefix_tokens=2, token_order=order)
    x = torch.randn(2, grid.tokens, 5, dtype=torch.float64)
    down = torch.randn(3, 5, *kernel, dtype=torch.float64)
    up = torch.randn(5, 3, *kernel, dtype=torch.float64)
    out = loaa(x, down, up, freq_bins=3, prefix_tokens=2, token_order=order, backend=backend)
    torch.testing.assert_close(out, by_hand(x, down, up, grid), rtol=1e-12, atol=1e-12)


def run(
    backend: str, grid: TokenGrid, kernel: tuple[int, int], *, summands: int, strided: bool, extras: bool
) -> list[Tensor]:
    """Output and every gradient of one call, always from the same random numbers."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        if strided and len(shape) == 3:  # a window of a wider tensor, transposed in memory
            wide = torch.randn(shape[0], shape[2] + 2, shape[1] + 3, dtype=torch.float64, generator=generator)
            return wide.transpose(1, 2)[:, 2:-1, 1:-1].detach().requires_grad_()
        return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()

    batch, dim, rank = 2, 6, 4
    inputs = {
        "x": draw(batch, grid.tokens, dim),
        "down_weight": draw(rank, dim, *kernel),
        "up_weight": draw(dim, rank, *kernel),
    }
    if summands >= 1:
        inputs["block_out"] = draw(batch, grid.tokens, dim)
    if summands == 2:
        inputs["skip"] = draw(batch, grid.tokens, dim)
    if extras:
        inputs |= {
            "down_bias": draw(rank),
            "up_bias": draw(dim),
            "hidden_mask": draw(batch, grid.tokens, rank),
        }
    settings = {"scale": 0.7, "activation": "silu"} if extras else {}
    out = loaa(
        **inputs,
        freq_bins=grid.freq_bins,
        prefix_tokens=grid.prefix_tokens,
        token_order=grid.token_order,
        backend=backend,
        **settings,
    )
    grad = draw(batch, grid.tokens, dim).detach()
    return [out, *torch.autograd.grad(out, list(inputs.values()), grad)]


@pytest.mark.parametrize("strided", [False, True], ids=["dense", "strided"])
@pytest.mark.parametrize("summands", [0, 1, 2])
@pytest.mark.parametrize("order", ["freq", "time"])
@pytest.mark.parametrize("prefix", range(5))
@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: f"{g[0]}x{g[1]}")
def test_backends_agree_in_values_and_gradients(
    grid: tuple[int, int], prefix: int, order: str, summands: int, strided: bool
) -> None:
    token_grid = TokenGrid(*grid, prefix, order)
    for kernel, extras in itertools.product(KERNELS, (False, True)):
        options = {"summands": summands, "strided": strided, "extras": extras}
        expected = run("reference", token_grid, kernel, **options)
        actual = run("torch", token_grid, kernel, **options)
        for want, got in zip(expected, actual, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@given(
    freq=st.integers(1, 9),
    time=st.integers(1, 12),
    prefix=st.integers(0, 4),
    order=st.sampled_from(["freq", "time"]),
    kernel=st.tuples(st.sampled_from([1, 3, 5, 7]), st.sampled_from([1, 3, 5, 7])),
    extras=st.booleans(),
)
def test_backends_agree_on_any_grid(
    freq: int, time: int, prefix: int, order: str, kernel: tuple[int, int], extras: bool
) -> None:
    grid = TokenGrid(freq, time, prefix, order)
    expected = run("reference", grid, kernel, summands=2, strided=False, extras=extras)
    actual = run("torch", grid, kernel, summands=2, strided=False, extras=extras)
    for want, got in zip(expected, actual, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu", "silu"])
def test_gradcheck(backend: str, activation: str) -> None:
    shapes = [(2, 2 + 2 * 5, 4), (3, 4, 1, 3), (4, 3, 1, 3), (3,), (4,), (2, 12, 3), (2, 12, 4), (2, 12, 4)]
    tensors = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]

    def call(x, down, up, down_bias, up_bias, mask, block_out, skip):  # type: ignore[no-untyped-def]
        return loaa(
            x, down, up, freq_bins=2, prefix_tokens=2, down_bias=down_bias, up_bias=up_bias, hidden_mask=mask,
            block_out=block_out, skip=skip, scale=1.3, activation=activation, backend=backend,
        )  # fmt: skip

    assert torch.autograd.gradcheck(call, tensors)


@pytest.mark.parametrize("frozen", ["x", "down", "up", "all"])
def test_only_gradients_that_are_wanted(frozen: str) -> None:
    x, down, up = (torch.randn(s, dtype=torch.float64) for s in [(2, 10, 4), (3, 4, 1, 3), (4, 3, 1, 3)])
    named = {"x": x, "down": down, "up": up}
    for name, tensor in named.items():
        tensor.requires_grad_(frozen not in (name, "all"))
    out = loaa(x, down, up, freq_bins=2, backend="torch")
    assert out.requires_grad == (frozen != "all")
    if frozen != "all":
        out.sum().backward()  # an expanded, stride-0 gradient
        for name, tensor in named.items():
            assert (tensor.grad is None) == (name == frozen)


def test_summands_gradients_are_passed_through_not_copied() -> None:
    x = torch.randn(2, 10, 4)
    down, up = torch.randn(3, 4, 1, 3, requires_grad=True), torch.randn(4, 3, 1, 3)
    block_out, skip = torch.randn(2, 10, 4, requires_grad=True), torch.randn(2, 10, 4, requires_grad=True)
    out = loaa(x, down, up, freq_bins=2, block_out=block_out, skip=skip, backend="torch")
    grad = torch.randn_like(out)
    d_block, d_skip = torch.autograd.grad(out, [block_out, skip], grad)
    assert d_block.data_ptr() == grad.data_ptr() == d_skip.data_ptr()


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_inputs_are_left_alone(backend: str) -> None:
    tensors = [torch.randn(s) for s in [(2, 10, 4), (3, 4, 1, 3), (4, 3, 1, 3), (2, 10, 4), (2, 10, 4)]]
    before = [t.clone() for t in tensors]
    x, down, up, block_out, skip = tensors
    loaa(x, down, up, freq_bins=2, block_out=block_out, skip=skip, backend=backend)
    for now, then in zip(tensors, before, strict=True):
        assert torch.equal(now, then)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_empty_batch(backend: str) -> None:
    x = torch.randn(0, 10, 4, requires_grad=True)
    down, up = torch.randn(3, 4, 1, 3, requires_grad=True), torch.randn(4, 3, 1, 3, requires_grad=True)
    out = loaa(x, down, up, freq_bins=2, backend=backend)
    out.sum().backward()
    assert out.shape == (0, 10, 4)
    assert down.grad is not None
    assert down.grad.abs().sum() == 0


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_autocast_result_has_the_dtype_of_the_plain_sum(backend: str) -> None:
    x, down, up = torch.randn(2, 10, 8), torch.randn(4, 8, 1, 3) / 5, torch.randn(8, 4, 1, 3) / 4
    skip, block_out = torch.randn(2, 10, 8), torch.randn(2, 10, 8).bfloat16()
    exact = loaa(x, down, up, freq_bins=2, block_out=block_out.float(), skip=skip, backend="reference")
    with torch.autocast("cpu", torch.bfloat16):
        branch = loaa(x, down, up, freq_bins=2, backend=backend)
        total = loaa(x, down, up, freq_bins=2, block_out=block_out, skip=skip, backend=backend)
    assert branch.dtype == torch.bfloat16
    assert total.dtype == torch.float32
    assert (total - exact).norm() / exact.norm() < 2e-2


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_compiles_without_graph_breaks(backend: str) -> None:
    shapes = ((2, 10, 4), (3, 4, 1, 3), (4, 3, 1, 3))
    # Float64: in float32, products are rounded in another order where they are compiled.
    x, down, up = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
    down.requires_grad_(), up.requires_grad_()

    def step(x: Tensor) -> Tensor:
        return loaa(x, down, up, freq_bins=2, skip=x, backend=backend)

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), step(x))
    grads = [torch.autograd.grad(f(x).square().sum(), [down, up]) for f in (compiled, step)]
    torch.testing.assert_close(grads[0], grads[1])


BAD_CALLS = {
    "tokens": ({"x": torch.zeros(2, 11, 4)}, r"11 tokens .* freq_bins=2"),
    "two dimensions": ({"x": torch.zeros(10, 4)}, r"x is \[batch, tokens, dim\], got shape \(10, 4\)"),
    "channels": ({"x": torch.zeros(2, 10, 5)}, r"x has 5 channels and the adapter 4"),
    "even kernel": ({"down_weight": torch.zeros(3, 4, 1, 2)}, r"odd sizes .* got \(1, 2\)"),
    "unlike weights": ({"up_weight": torch.zeros(4, 2, 1, 3)}, r"needs an up_weight of shape \(4, 3, 1, 3\)"),
    "summand": ({"skip": torch.zeros(2, 9, 4)}, r"skip has shape \(2, 9, 4\), expected \(2, 10, 4\)"),
    "bias": ({"down_bias": torch.zeros(4)}, r"down_bias has shape \(4,\), expected \(3,\)"),
    "dtype": ({"x": torch.zeros(2, 10, 4).double()}, r"x is torch.float64 .* weights are torch.float32"),
    "device": ({"x": torch.zeros(2, 10, 4, device="meta")}, r"down_weight is on cpu and x on meta; move"),
    "activation": ({"activation": "swish"}, r"activation is one of gelu, .* got 'swish'"),
    "backend": ({"backend": "cuda"}, r"backend is one of auto, .* got 'cuda'"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls_say_what_was_given_and_expected(name: str) -> None:
    change, message = BAD_CALLS[name]
    call = {
        "x": torch.zeros(2, 10, 4),
        "down_weight": torch.zeros(3, 4, 1, 3),
        "up_weight": torch.zeros(4, 3, 1, 3),
        "freq_bins": 2,
    }
    with pytest.raises(ValueError, match=message) as error:
        loaa(**(call | change))
    assert "\n" not in str(error.value)


def test_weights_that_have_moved_since_the_last_call_are_seen() -> None:
    """A kernel would read the memory of one device by the addresses of another."""
    layer, x = LoAA(4, 3, freq_bins=2).to("meta"), torch.zeros(2, 10, 4, device="meta")
    layer(x)
    layer.to_empty(device="cpu")
    with pytest.raises(ArgumentError, match="down_weight is on cpu and x on meta"):
        layer(x)


def test_triton_on_the_cpu_is_a_clear_error() -> None:
    with pytest.raises(BackendError, match=r'backend "triton" .* x is on cpu, .* use backend="auto"'):
        choose_backend(torch.zeros(1, 1, 16), (1, 3), 4, "triton")
