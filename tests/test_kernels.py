"""The kernels' own tests, under Triton's interpreter where there is no GPU; and the ops where no kernel can run.

Whether kernels are interpreted is settled when they are defined, so the files of tests/kernels run in processes of
their own. With a GPU, `pytest tests/kernels` is the same tests on the real thing.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from fastloaa import LoAA
from fastloaa.ops import functional
from fastloaa.ops.functional import BackendError, choose_backend, loaa
from fastloaa.ops.library import loaa_backward, loaa_forward

FOLDER = Path(__file__).parent / "kernels"
INTERPRETED_ANYWHERE = {"test_interpreted.py", "test_traffic_model.py", "test_widened_interpreted.py"}
LONG = {"test_grids.py", "test_widths.py"}
FILES = [
    pytest.param(path.name, marks=[pytest.mark.slow] if path.name in LONG else [])
    for path in sorted(FOLDER.glob("test_*.py"))
]


@pytest.mark.parametrize("file", FILES)
def test_of_the_kernels(file: str) -> None:
    """Every test of the file passes; none is skipped."""
    environment = dict(os.environ)
    if file in INTERPRETED_ANYWHERE or not torch.cuda.is_available():
        environment |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(FOLDER / file)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    output = run.stdout + run.stderr
    assert run.returncode == 0, output[-6000:]
    summary = run.stdout.strip().splitlines()[-1]
    assert re.search(r"\b[1-9]\d* passed\b", summary), output[-2000:]
    assert not re.search("skipped|failed|error|xfailed|deselected", summary), summary


def on_cuda(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A CUDA tensor without a GPU: its shape and device are all that the choice of a backend asks for."""
    with FakeTensorMode():
        return torch.empty(shape, dtype=dtype, device="cuda")


REFUSALS = {
    "CPU tensor": (torch.empty(1, 4, 16), (1, 3), 4, "x is on cpu, and the kernels need CUDA tensors"),
    "square kernel": (on_cuda(1, 4, 16), (3, 3), 4, r"kernel \(3, 3\) is not one-dimensional"),
    "nine taps": (on_cuda(1, 4, 16), (1, 9), 4, "beyond 7 taps and 256 rows"),
    "wide bottleneck": (on_cuda(1, 4, 16), (1, 3), 257, r"kernel \(1, 3\) with bottleneck 257 is beyond"),
    "odd dim": (on_cuda(1, 4, 24), (1, 3), 4, "dim 24 is not divisible by 16"),
    "float64": (on_cuda(1, 4, 16, dtype=torch.float64), (1, 3), 4, "torch.float64 is not float32, float16 or bfloat16"),
}


@pytest.fixture
def compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Triton that is installed may be too old for it."""
    monkeypatch.setattr(functional, "NOT_COMPILED", None)


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch, compiling: None) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize("name", REFUSALS)
def test_triton_says_why_it_cannot_run_and_auto_takes_another(name: str) -> None:
    x, kernel, bottleneck, reason = REFUSALS[name]
    with pytest.raises(BackendError, match=f'backend "triton" .* cannot run: .*{reason}.*; use backend=') as error:
        choose_backend(x, kernel, bottleneck, "triton")
    assert "\n" not in str(error.value)
    choice = choose_backend(x, kernel, bottleneck)
    assert choice.backend == "torch"
    if x.device.type == "cuda":
        assert re.search(reason, choice.reason)


@pytest.mark.usefixtures("hopper")
def test_triton_runs_where_nothing_is_in_the_way() -> None:
    assert choose_backend(on_cuda(1, 4, 16), (1, 3), 256, "triton").backend == "triton"
    assert choose_backend(on_cuda(1, 4, 16), (7, 1), 4).backend == "triton"


@pytest.mark.usefixtures("compiling")
def test_an_old_gpu_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))
    with pytest.raises(BackendError, match=r"the GPU is older than compute capability 8.0"):
        choose_backend(on_cuda(1, 4, 16), (1, 3), 4, "triton")


def test_missing_triton_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functional, "NO_TRITON", "the package triton is not installed")
    with pytest.raises(BackendError, match=r"the package triton is not installed; use backend="):
        choose_backend(on_cuda(1, 4, 16), (1, 3), 4, "triton")
    layer, x = LoAA(16, 4, freq_bins=2), torch.randn(1, 4, 16)
    assert layer(x).shape == x.shape


@pytest.mark.usefixtures("hopper")
def test_explain() -> None:
    cpu, cuda = torch.empty(1, 4, 16), on_cuda(1, 4, 16)
    assert str(LoAA(16, 4, "time", freq_bins=2).explain(cpu)).startswith("torch: ")
    assert str(LoAA(16, 4, "time", freq_bins=2).explain(cuda)).startswith("triton: ")
    square = LoAA(16, 4, (3, 3), freq_bins=2)
    assert "kernel (3, 3) is not one-dimensional" in str(square.explain(cuda))
    assert str(LoAA(16, 4, backend="reference", freq_bins=2).explain(cuda)) == "reference: asked for"
    with pytest.raises(BackendError, match="x is on cpu"):
        LoAA(16, 4, backend="triton", freq_bins=2).explain(cpu)


def call(*, summands: bool = True, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Inputs of grid 3x4 with two prefix tokens, r = 5, kernel (1, 3)."""
    shapes = {"x": (2, 14, 16), "down_weight": (5, 16, 1, 3), "up_weight": (16, 5, 1, 3)}
    shapes |= {"down_bias": (5,), "up_bias": (16,), "hidden_mask": (2, 14, 5)}
    shapes |= {"block_out": (2, 14, 16), "skip": (2, 14, 16)} if summands else {}
    return {
        name: torch.randn(shape, dtype=dtype).requires_grad_(name != "hidden_mask") for name, shape in shapes.items()
    }


ORDER = ("x", "down_weight", "up_weight", "down_bias", "up_bias", "hidden_mask", "block_out", "skip")
NOT_NORMED = (None, None, None)
SETTINGS = (3, 2, False, 0.7, "silu")


@pytest.mark.parametrize("summands", [True, False])
def test_the_op_on_cpu_tensors_is_the_torch_backend(summands: bool) -> None:
    """One call site serves every device: values and gradients of the op equal those of the "torch" backend."""
    inputs = call(summands=summands, dtype=torch.float64)
    out, _ = loaa_forward(*(inputs.get(name) for name in ORDER), *NOT_NORMED, *SETTINGS, 0.0, True)
    expected = loaa(**inputs, freq_bins=3, prefix_tokens=2, scale=0.7, activation="silu", backend="torch")
    torch.testing.assert_close(out, expected)
    wanted = [tensor for tensor in inputs.values() if tensor.requires_grad]
    grad = torch.randn_like(out)
    torch.testing.assert_close(torch.autograd.grad(out, wanted, grad), torch.autograd.grad(expected, wanted, grad))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_opcheck_on_cpu_tensors(dtype: torch.dtype) -> None:
    inputs = call(dtype=dtype)
    torch.library.opcheck(loaa_forward, [*(inputs[name] for name in ORDER), *NOT_NORMED, *SETTINGS, 0.0, True])
    x, down, up, mask = (inputs[name].detach() for name in ("x", "down_weight", "up_weight", "hidden_mask"))
    pre, dy = torch.randn_like(mask), torch.randn_like(x)
    operands = (x, down, up, None, None, mask, None, None, *NOT_NORMED)
    torch.library.opcheck(loaa_backward, [dy, pre, *operands, *SETTINGS, 0.0, True, True, True])
    torch.library.opcheck(loaa_backward, [dy, pre, *operands, *SETTINGS, 0.0, False, False, True])


def test_the_op_counts_the_operations_of_the_torch_backend() -> None:
    x, down = torch.randn(2, 12, 16, requires_grad=True), torch.randn(16, 16, 1, 3, requires_grad=True)
    up, frozen = torch.randn_like(down, requires_grad=True), torch.randn_like(down)
    for weight in (down, frozen):
        counts = []
        for fused in (True, False):
            with FlopCounterMode(display=False) as counted:
                if fused:
                    out, _ = loaa_forward(x, weight, up, *[None] * 5, *NOT_NORMED, 3, 0, *SETTINGS[2:], 0.0, True)
                else:
                    out = loaa(x, weight, up, freq_bins=3, backend="torch")
                out.sum().backward()
            counts.append(counted.get_total_flops())
        assert counts[0] == counts[1] > 0


def test_gradients_need_the_pre_activation() -> None:
    inputs = call()
    with pytest.raises(RuntimeError, match=r"keep_pre=False; call fastloaa\.loaa"):
        loaa_forward(*(inputs[name] for name in ORDER), *NOT_NORMED, *SETTINGS, 0.0, False)
