"""The ops as PyTorch sees them: schemas, fakes, autograd, torch.compile, CUDA graphs."""

import pytest
import torch
from kernel_cases import DEVICE, DTYPES, SLOW_DTYPES, Case, check, draw
from torch import Tensor

from fastloaa import LoAA
from fastloaa.ops.library import loaa_backward, loaa_forward
from fastloaa.ops.normed import norm_once


def forward_arguments(case: Case, dtype: torch.dtype, normed: bool = False) -> list[object]:
    inputs = case.inputs(dtype)
    names = ("x", "down_weight", "up_weight", "down_bias", "up_bias", "hidden_mask", "block_out", "skip")
    source = [None] * 3
    if normed:  # residual, weight and bias
        source = [draw(shape, 3).to(dtype) for shape in ((case.batch, case.tokens, case.dim), (case.dim,), (case.dim,))]
    settings = [case.freq, case.prefix, case.order == "time", case.scale, case.activation, 1e-6]
    return [*(inputs.get(name) for name in names), *source, *settings, True]


@pytest.mark.parametrize("dtype", SLOW_DTYPES, ids=str)
@pytest.mark.parametrize(
    "case", [Case(), Case(bias=True, mask=True, kernel=(3, 1), strided=True), Case(batch=0, summands=0)]
)
def test_opcheck_forward(case: Case, dtype: torch.dtype) -> None:
    """Schema, autograd registration, fakes, and AOT dispatch with dynamic shapes."""
    torch.library.opcheck(loaa_forward, forward_arguments(case, dtype))
    torch.library.opcheck(loaa_forward, forward_arguments(case, dtype, normed=True))


@pytest.mark.parametrize("wanted", [(True, True, True), (False, True, False), (True, False, False)])
@pytest.mark.parametrize("dtype", SLOW_DTYPES, ids=str)
def test_opcheck_backward(dtype: torch.dtype, wanted: tuple[bool, bool, bool]) -> None:
    case = Case(mask=True)
    x, down, up, _, _, mask, _, _, _, _, _, *settings, _ = forward_arguments(case, dtype)
    pre = draw((case.batch, case.tokens, case.rank), 1).to(dtype)
    dy = draw((case.batch, case.tokens, case.dim), 2).to(dtype)
    call = [None if t is None else t.detach() for t in (x, down, up, None, None, mask, *[None] * 5)]  # type: ignore[attr-defined]
    torch.library.opcheck(loaa_backward, [dy, pre, *call, *settings, *wanted])


class Block(torch.nn.Module):
    """An adapter where it is used: beside a block, its output in the residual sum."""

    def __init__(self, backend: str, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = torch.nn.LayerNorm(16, device=DEVICE, dtype=dtype)
        self.block = torch.nn.Linear(16, 16, device=DEVICE, dtype=dtype)
        self.adapter = LoAA(
            16, 4, "time", freq_bins=2, prefix_tokens=1, bias=True, backend=backend, device=DEVICE, dtype=dtype
        )
        torch.nn.init.normal_(self.adapter.up.weight, std=0.3)

    def forward(self, x: Tensor) -> Tensor:
        normed, source = norm_once(self.norm, x)
        return self.adapter(normed, self.block(normed), x, source)


def step(module: torch.nn.Module, model: Block, x: Tensor) -> list[Tensor]:
    """Output and gradients of one training step."""
    x = x.clone().requires_grad_()
    out = module(x)
    return [out.detach(), *torch.autograd.grad(out.square().mean(), [x, *model.parameters()])]


def tokens(batch: int, time: int, dtype: torch.dtype) -> Tensor:
    return draw((batch, 1 + 2 * time, 16), batch).to(dtype)


@pytest.mark.parametrize("dtype", SLOW_DTYPES, ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
def test_compiles_as_one_graph(training: bool, dtype: torch.dtype) -> None:
    """With no graph break, dynamic in batch and time steps without compiling again."""
    torch._dynamo.reset()
    model = Block("triton", dtype)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=True)
    for count, (batch, time) in enumerate([(2, 5), (3, 5), (2, 9), (7, 4)]):
        x = tokens(batch, time, dtype)
        with (
            torch.no_grad() if not training else torch.enable_grad(),
            torch._dynamo.config.patch(error_on_recompile=count > 0),
        ):
            ours, eager = (step(m, model, x) if training else [m(x)] for m in (compiled, model))
        torch.testing.assert_close(ours, eager)


def test_marked_dynamic_does_not_compile_again() -> None:
    torch._dynamo.reset()
    model = Block("triton", torch.float32)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for batch in (4, 2, 6):
        x = tokens(batch, 3, torch.float32)
        torch._dynamo.mark_dynamic(x, 0)
        with torch._dynamo.config.patch(error_on_recompile=batch != 4):
            torch.testing.assert_close(compiled(x), model(x))


def test_compiled_under_autocast() -> None:
    torch._dynamo.reset()
    model = Block("triton", torch.float32)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = tokens(2, 5, torch.float32)
    with torch.autocast(DEVICE, DTYPES[-1]):
        torch.testing.assert_close(compiled(x), model(x))


if DEVICE == "cuda":

    @pytest.mark.parametrize("dtype", SLOW_DTYPES, ids=str)
    def test_cuda_graph(dtype: torch.dtype) -> None:
        model, x = Block("triton", dtype), tokens(4, 8, dtype)
        graphed = torch.cuda.make_graphed_callables(Block("triton", dtype), (x.clone().requires_grad_(),))
        torch.testing.assert_close(step(graphed, graphed, x), step(model, model, x))  # type: ignore[arg-type]

    @pytest.mark.slow
    @pytest.mark.parametrize("dtype", SLOW_DTYPES, ids=str)
    def test_full_size(dtype: torch.dtype) -> None:
        check(Case(8, 64, (1, 3), 2, "freq", 64, 768, 36), dtype)
