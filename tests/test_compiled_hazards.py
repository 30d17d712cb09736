"""What the interpreter cannot show: barriers, variants and limits of the compiled kernels. Nothing is launched."""

import re

import pytest
import torch
import triton
import triton.language as tl
from triton.language.extra import libdevice

from fastloaa.kernels import resources, tile_launch, weight_grad_launch
from fastloaa.kernels.configs import Setting
from fastloaa.kernels.elementwise import activate
from fastloaa.kernels.launchable import Launch
from fastloaa.kernels.resources import CHIPS, Sample
from fastloaa.kernels.tile import Geometry

LONGEST_GRID, OTHER_AXES = 2**31 - 1, 2**16 - 1  # programs along x, y and z (CUDA C++ Programming Guide)


def between_the_products(launch: Launch, capability: int) -> str:
    """Stores, loads and barriers after the last instruction of one product and before the next: "S", "L", "B"; loads
    of 16 bytes, which are of tokens and not of rows as narrow as a bottleneck of 36: "T".
    """
    letters = {"STG": "S", "LDG": "L", "LDG.E.128": "T", "BAR": "B"}
    pattern = r"\b(STG|LDG\.E\.128|LDG|BAR|LDGSTS|HMMA|HGMMA|UTCHMMA|UTMALDG)\b"
    code = [found[1] for found in re.finditer(pattern, resources.instructions(launch, capability))]
    products = [number for number, name in enumerate(code) if name.endswith("MMA")]
    first_of_second = max(products[1:], key=lambda number: number - products[products.index(number) - 1])
    last_of_first = products[products.index(first_of_second) - 1]
    return "".join(letters.get(name, "") for name in code[last_of_first + 1 : first_of_second])


@pytest.mark.parametrize("kernel", [(1, 3), (3, 1)], ids=str)
@pytest.mark.parametrize("capability", CHIPS)
def test_barriers_stand_between_writing_and_reading_what_crosses(capability: int, kernel: tuple[int, int]) -> None:
    """Taps are stored, waited for and loaded; so are hidden rows; and all is loaded before the result is stored.

    Triton 3.4 loads the tokens that the result is added to before the second product, 3.6 after it.
    """
    sample = Sample("forward", torch.bfloat16, 36, kernel)
    launch = sample.launch(Setting(64, 32, 4, 2))
    launch.arguments |= {"p_pre": None, "KEEP_PRE": False}
    crossing = between_the_products(launch, capability)
    assert re.fullmatch("B*S+B+L+B*S+(B*L*S+)*B+L+B[BT]*", crossing), crossing


TEN = [
    *((batch, 8, 64) for batch in (1, 2, 3, 16, 64)),
    *((2, 8, time) for time in (8, 25, 32)),
    (2, 12, 101),
    (5, 1, 1),
]


@pytest.mark.parametrize("kernel", ["forward", "input_grad", "weight_grad", "weight_sum"])
def test_one_compiled_kernel_serves_ten_shapes(kernel: str) -> None:
    """Users wait for the compiler once, whatever the batch, the clip's length or the bins."""
    compiled = set()
    with resources.compiling_for(90):
        for batch, freq, time in TEN:
            launch = small(kernel, batch, freq, time)
            made = launch.kernel.warmup(grid=launch.programs, **launch.arguments, **launch.compile_options)
            compiled.add(made)
    assert len(compiled) == 1


def small(kernel: str, batch: int, freq: int, time: int) -> Launch:
    """A launch on [batch, 2 + freq * time, 64] with one setting."""
    dim, rank, chosen, dtype = 64, 4, Setting(32, 32, 4, 2), torch.bfloat16
    wide = [torch.empty(batch, 2 + freq * time, dim, dtype=dtype, device="meta") for _ in range(4)]
    hidden = [torch.empty(batch, 2 + freq * time, rank, dtype=dtype, device="meta") for _ in range(3)]
    down = torch.empty(rank, dim, 1, 3, dtype=dtype, device="meta").contiguous(memory_format=torch.channels_last)
    up = torch.empty(dim, rank, 1, 3, dtype=dtype, device="meta").contiguous(memory_format=torch.channels_last)
    geometry, part = Geometry(freq, 2, False), slice(0, rank)
    if kernel == "forward":
        x, block_out, skip, out = wide
        return tile_launch.forward(
            x, down, up, None, None, None, block_out, skip, out, hidden[0], part, geometry, 1.0, "gelu", chosen
        )
    if kernel == "input_grad":
        pre, d_pre, rows = hidden
        return tile_launch.input_grad(
            wide[0], down, up, None, pre, d_pre, rows, None, wide[1], part, geometry, 1.0, "gelu", chosen
        )
    split = weight_grad_launch.Split.of(wide[0], wide[1], down, 2, chosen)
    partial = torch.empty(2, split.splits, 3 * rank, dim, dtype=torch.float32, device="meta")
    if kernel == "weight_grad":
        return weight_grad_launch.weight_grad(
            wide[0], wide[1], down, hidden[1], hidden[2], partial, split, geometry, True, True
        )
    return weight_grad_launch.weight_sum(partial, torch.empty_like(down), torch.empty_like(up))


@pytest.mark.parametrize("kernel", ["forward", "input_grad", "weight_grad"])
def test_grids_keep_to_their_limits(kernel: str) -> None:
    """512 clips of 1,214 tokens, 1,024 wide; programs for all tokens stand along the axis that may be long."""
    sample = Sample(kernel, torch.bfloat16, 108, (1, 1), dim=1024, batch=512)
    along, *others = (*sample.launch(None).programs, 1, 1)
    assert 0 < along <= LONGEST_GRID // 4096, "room for batches that no memory holds"
    assert all(0 < count <= OTHER_AXES for count in others)


@pytest.mark.parametrize("kernel", ["forward", "input_grad"])
def test_offsets_are_64_bit_where_clips_lie_far_apart_and_only_there(kernel: str) -> None:
    """512 clips of 1,214 tokens, 1,024 wide, need none within a program; clips 2 ** 30 elements apart do."""
    sample = Sample(kernel, torch.bfloat16, 36, dim=1024, batch=512)
    assert not sample.launch(None).arguments["LONG"]
    apart = sample.wide[0].as_strided(sample.wide[0].shape, (2**30, 1024, 1))
    sample.__dict__["wide"] = [apart, *sample.wide[1:]]
    assert sample.launch(None).arguments["LONG"]


@triton.jit
def gelu_kernel(p_x, BLOCK: tl.constexpr, ERF: tl.constexpr):
    p_tile = p_x + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(p_tile).to(tl.float32)
    # As PyTorch's kernel: x / 2 (1 + erf(x / sqrt(2))), with CUDA's own erf.
    tl.store(p_tile, x * 0.5 * (1.0 + libdevice.erf(x * 0.7071067811865476)) if ERF else activate(x, "gelu"))


def test_gelu_takes_fewer_instructions_than_by_cudas_erf() -> None:
    counts = []
    for erf in (False, True):
        with resources.compiling_for(90):
            x = torch.empty(4096, dtype=torch.bfloat16, device="meta")
            made = gelu_kernel.warmup(x, BLOCK=1024, ERF=erf, grid=(4,), num_warps=4)
        counts.append(len(re.findall(r"^\s+/\*[0-9a-f]{4}\*/", resources.disassembled(made.asm["cubin"]), re.M)))
    ours, theirs = counts
    assert ours < theirs
