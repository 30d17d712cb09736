"""Launch settings: every frozen one compiles for its chip as it should, and tables made by tuning load."""

import json
import multiprocessing
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from fastloaa.kernels import chip, configs, launchable, resources, tile_launch
from fastloaa.kernels.configs import Key, Setting
from fastloaa.kernels.resources import CHIPS, Resources, Sample, WidenedSample
from fastloaa.kernels.widened_launch import LONGEST_LINE

BENCH = Path(__file__).parents[1] / "bench"
# Adapters (r, kernel) that fill a class of columns, or whose rows are not aligned: the paper's.
ADAPTERS = {128: [(36, (1, 3))], 256: [(72, (1, 3)), (54, (1, 3)), (108, (1, 1))]}


def samples(key: Key) -> Iterator[Sample]:
    """What a setting must serve, at full width: forward with both summands, biases and mask, and so on."""
    kernel, element_bytes, wide_bytes, columns = key
    dtype = torch.bfloat16 if element_bytes == 2 else torch.float32
    # As under autocast: 3 bytes are a skip in float32 beside a block's output in 16 bits.
    x_dtype = torch.float32 if wide_bytes > max(3, element_bytes) else None
    stream_dtype = torch.float32 if wide_bytes > element_bytes else None
    for rank, size in ADAPTERS[columns]:
        if kernel != "weight_grad" or size != (1, 1):
            extras = kernel != "weight_grad"
            yield Sample(kernel, dtype, rank, size, x_dtype=x_dtype, stream_dtype=stream_dtype, extras=extras)


@dataclass(frozen=True)
class Job:
    """One launch to compile, and whether the compiler's program is looked into."""

    sample: Sample
    setting: Setting
    capability: int
    is_read: bool


WHOLE = (86, 90)
"""The chips with least shared memory, and those whose products read from it: every setting is compiled for them."""


def jobs(capability: int) -> Iterator[Job]:
    """What is compiled for a chip, at more than half a second each.

    For `WHOLE` every class, with smaller tiles where no summand is wider than the weights. For others the largest tiles
    of such classes, and for those that share the table of another, of one class of each kernel.
    """
    table, is_whole = configs.table(capability), capability in WHOLE
    is_first = next(chip for chip in CHIPS if configs.table(chip) == table) == capability
    for key in table:
        kernel, element_bytes, wide_bytes, columns = key
        is_plain = element_bytes == wide_bytes
        if not (is_whole or is_plain) or not (is_first or (element_bytes, columns) == (2, 128)):
            continue
        for number, sample in enumerate(list(samples(key))[: None if is_whole else 1]):
            taps = sample.size[0] * sample.size[1]
            tried = configs.settings(kernel, capability, element_bytes, wide_bytes, columns, taps, sample.rank)
            for chosen in tried if is_whole and is_plain and number == 0 else tried[:1]:
                yield Job(sample, chosen, capability, is_plain and chosen is tried[0] and taps > 1)


@dataclass(frozen=True)
class Compiled:
    """`matrix_instructions`, `shuffles` and `open_loads` (for which a warp waits in a loop): of those that are read."""

    resources: Resources
    matrix_instructions: dict[str, int]
    shuffles: int
    open_loads: int


def compiled(job: Job) -> Compiled:
    launch = job.sample.launch(job.setting)
    used = resources.compile_launch(launch, job.capability)
    if not job.is_read:
        return Compiled(used, {}, 0, 0)
    sys.path.insert(0, str(BENCH))
    from compile_report import Work, trips
    from sass import read

    work = Work(job.sample.kernel, "", job.sample.rank, job.sample.size, launch)
    open_loads = sum(loop.open_loads for loop in read(used.instructions, trips(work)).loops)
    return Compiled(used, used.matrix_instructions, used.shuffles, open_loads)


DTYPES = [torch.bfloat16, torch.float32]
# The widest of the paper's; then what takes most registers: odd ranks, whose columns are not aligned, seven taps, the
# longest lines.
WIDENED = [
    sample
    for dtype in DTYPES
    for sample in (WidenedSample(dtype, 72, (1, 3)), WidenedSample(dtype, 37, (1, 7), time=LONGEST_LINE))
]
SHORTER = [WidenedSample(dtype, 37, (1, 7), time=time) for dtype in DTYPES for time in (64, 512)]


def compiled_widened(job: tuple[WidenedSample, int]) -> Resources:
    sample, capability = job
    return resources.compile_launch(sample.launch(), capability)


@pytest.fixture(scope="module")
def compilers() -> Iterator[ProcessPoolExecutor]:
    """Two processes that compile."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.mark.slow
@pytest.mark.parametrize("capability", CHIPS)
def test_every_frozen_setting_compiles_as_it_should(capability: int, compilers: ProcessPoolExecutor) -> None:
    """Nothing spills or is shuffled, products are of tensor cores, and no load of a loop waits in the open."""
    tried = list(jobs(capability))
    chip = CHIPS[capability]
    for job, found in zip(tried, compilers.map(compiled, tried), strict=True):
        used = found.resources
        assert used.stack_bytes == 0, f"{job}: a thread spills {used.stack_bytes} bytes"
        assert used.shared_bytes <= chip.program_shared_kb * 1024, f"{job}: {used.shared_bytes} bytes"
        assert used.programs(chip, job.setting.warps) >= 1
        if job.is_read:
            assert found.matrix_instructions, f"{job}: no tensor cores"
            assert found.shuffles <= 1, job  # by which a warp learns its number
            assert found.open_loads == 0, job


@pytest.mark.slow
@pytest.mark.parametrize("capability", CHIPS)
def test_the_pass_of_merged_models_compiles_without_spills(capability: int, compilers: ProcessPoolExecutor) -> None:
    tried = WIDENED + SHORTER * (capability == 90)
    results = compilers.map(compiled_widened, [(sample, capability) for sample in tried])
    for sample, used in zip(tried, results, strict=True):
        assert used.fits(CHIPS[capability]), f"{sample}: {used}"
        assert used.programs(CHIPS[capability], sample.launch().setting.warps) >= 1


def memory_instructions(sample: WidenedSample, capability: int) -> str:
    """Loads, stores and barriers in the order of the program, as "LDG BAR STG"."""
    return " ".join(re.findall(r"\b(LDG|STG|BAR)\b", resources.instructions(sample.launch(), capability)))


@pytest.mark.parametrize("capability", CHIPS)
def test_the_pass_of_merged_models_reads_before_it_writes(capability: int) -> None:
    """In place: no warp of a program stores its copies before every warp has loaded what it sums."""
    one_path = memory_instructions(WidenedSample(torch.bfloat16, 36, wide_activation=""), capability)
    assert re.fullmatch("(LDG ){3}BAR STG STG STG", one_path)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_pass_of_merged_models_moves_16_bytes_at_a_time(dtype: torch.dtype) -> None:
    """Of the block's own columns, which are most of its traffic; and at full occupancy, which hides their latency."""
    sample, wide_loads = WidenedSample(dtype, 36), dtype.itemsize // 2
    code = resources.instructions(sample.launch(), 90)
    wide = code[code.rindex("BAR.SYNC") :]
    assert len(re.findall(r"LDG\.E\.128", wide)) == wide_loads
    assert len(re.findall(r"LDG", wide)) == wide_loads
    used, warps = resources.compile_launch(sample.launch(), 90), sample.launch().setting.warps
    assert used.programs(CHIPS[90], warps) * 32 * warps == CHIPS[90].threads


@pytest.mark.parametrize("kernel", ["forward", "input_grad"])
@pytest.mark.parametrize(("rank", "size", "dim"), [(16, (1, 1), 32), (5, (1, 3), 16)], ids=str)
def test_narrow_float32_models_are_multiplied_without_wgmma(
    kernel: str, rank: int, size: tuple[int, int], dim: int
) -> None:
    """Found by memcheck on an H200: ptxas adds an address to the strides of wgmma's operand where no loop is left."""
    used = resources.compile_launch(Sample(kernel, torch.float32, rank, size, dim=dim, batch=2).launch(None), 90)
    assert used.matrix_instructions.keys() == {"HMMA"}


def test_spills_are_seen() -> None:
    """The measure itself: a tile too large for its warps spills, and does not fit a chip with little shared memory."""
    used = resources.compile_launch(Sample("forward", torch.bfloat16, 72).launch(Setting(128, 64, 4, 3)), 90)
    assert used.stack_bytes > 0
    assert not used.fits(CHIPS[90])
    assert used.shared_bytes > CHIPS[86].program_shared_kb * 1024
    assert used.matrix_instructions.keys() == {"HGMMA"}


def test_one_compiled_kernel_serves_every_batch() -> None:
    """Users do not wait for the compiler when the last batch of an epoch is smaller."""
    chosen = Setting(32, 32, 4, 2)
    kernels = set()
    with resources.compiling_for(90):
        for batch in (1, 3, 16, 64):
            launch = Sample("forward", torch.bfloat16, 4, dim=64, batch=batch).launch(chosen)
            kernels.add(launch.kernel.warmup(grid=launch.programs, **launch.arguments, **launch.compile_options))
    assert len(kernels) == 1


def test_one_compiled_pass_serves_every_batch_and_grid() -> None:
    kernels = set()
    with resources.compiling_for(90):
        for batch, freq, time in [(1, 8, 64), (3, 8, 64), (64, 8, 25), (16, 12, 101), (2, 1, 1)]:
            launch = WidenedSample(torch.bfloat16, 4, dim=16, batch=batch, freq=freq, time=time).launch()
            kernels.add(launch.kernel.warmup(grid=launch.programs, **launch.arguments, **launch.compile_options))
    assert len(kernels) == 1


@pytest.mark.parametrize("capability", [*CHIPS, 75, 87, 103, 121])
def test_every_kernel_has_a_setting_for_any_width(capability: int) -> None:
    for kernel in configs.KERNELS:
        for element_bytes in (2, 4):
            widest = configs.widest(kernel, capability, element_bytes)
            assert widest >= 7 * 8, "seven taps of eight hidden rows fit in a launch"
            for wide_bytes in (2, 4):
                for columns in (16, widest):
                    tried = configs.settings(kernel, capability, element_bytes, wide_bytes, columns)
                    tiles = [chosen.block_tokens for chosen in tried]
                    assert tiles == sorted(tiles, reverse=True)
                    assert tiles[-1] > 2 * 2 * 3 or kernel == "weight_grad", "longer than the halo of seven taps"


def launch_at_8x64(batch: int, processors: int, monkeypatch: pytest.MonkeyPatch) -> launchable.Launch:
    """Of the forward at 8x64 with the setting that is chosen for a batch."""
    monkeypatch.setattr(chip, "multiprocessors", lambda device: processors)
    x, (down, up) = torch.empty(batch, 514, 768, dtype=torch.bfloat16, device="meta"), WEIGHTS
    return tile_launch.forward(
        x, down, up, None, None, None, x, x, torch.empty_like(x), None, slice(0, 36), Sample.geometry, 1.0, "gelu"
    )


WEIGHTS = Sample("forward", torch.bfloat16, 36).weights


def test_small_batches_get_small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """As large as possible, but nearly every multiprocessor has one."""
    tiles = [launch_at_8x64(batch, 132, monkeypatch) for batch in (64, 16, 1)]
    sizes = [launch.setting.block_tokens for launch in tiles]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3
    assert all(launch.programs[0] >= 0.875 * 132 for launch in tiles[:2])
    assert launch_at_8x64(1, 4, monkeypatch).setting == tiles[0].setting


@pytest.mark.parametrize("kernel", configs.KERNELS[:2])
@pytest.mark.parametrize(("rank", "size"), [(129, (1, 1)), (255, (7, 1)), (86, (1, 3)), (256, (1, 5))])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_parts_of_wide_adapters_are_aligned(kernel: str, rank: int, size: tuple[int, int], dtype: torch.dtype) -> None:
    """So that the weights of each are read in pieces of 16 bytes; and no part is wider than its class."""
    parts = tile_launch.parts(kernel, torch.empty(rank, 16, *size, dtype=dtype, device="meta"))
    assert len(parts) > 1
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(rank))
    assert all(part.start % 8 == 0 for part in parts)
    widest = configs.widest(kernel, 90, dtype.itemsize)
    assert all(tile_launch.columns(part.stop - part.start, max(size)) <= widest for part in parts)


ROW = {"kernel": "forward", "element_bytes": 2, "wide_bytes": 2, "columns": 128, "median_ms": 0.1}
ROW |= {"block_tokens": 256, "block_channels": 32, "warps": 16, "stages": 4}
TABLE = {"machine": {"gpu": "a GPU"}, "capability": 90, "settings": [ROW]}


@pytest.fixture
def _frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configs, "INSTALLED", {})


@pytest.mark.usefixtures("_frozen")
def test_a_tuned_table_is_used_on_its_kind_of_chip(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text(json.dumps(TABLE))
    frozen = configs.settings("forward", 90, 2, 2, 128)
    others = [(90, 2, 2, 256), (90, 2, 4, 128), (80, 2, 2, 128)]
    before = [configs.settings("forward", *key) for key in others]
    configs.load_table(path)
    assert configs.settings("forward", 90, 2, 2, 108) == (Setting(256, 32, 16, 4), *frozen)
    assert [configs.settings("forward", *key) for key in others] == before


BAD_TABLES = {
    "not JSON": "{",
    "a list": "[]",
    "no settings": json.dumps({"capability": 90}),
    "no capability": json.dumps({"settings": TABLE["settings"]}),
    "capability as text": json.dumps(TABLE | {"capability": "90"}),
    "unknown kernel": json.dumps(TABLE).replace('"forward"', '"sideways"'),
    "unknown width": json.dumps(TABLE).replace("128", "96"),
    "not a power of two": json.dumps(TABLE).replace("256", "200"),
    "a block too small for tensor cores": json.dumps(TABLE).replace("256", "8"),
    "text for a number": json.dumps(TABLE).replace("256", '"256"'),
    "missing warps": json.dumps(TABLE).replace("warps", "wraps"),
    "no stages": json.dumps(TABLE).replace('"stages": 4', '"stages": 0'),
}


@pytest.mark.usefixtures("_frozen")
@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_file_that_is_no_table_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text(BAD_TABLES[name])
    before = configs.table(90)
    with pytest.raises(ValueError, match=r"table.json is not a table of launch settings .* expected what") as error:
        configs.load_table(path)
    assert "\n" not in str(error.value)
    assert configs.table(90) == before


def test_tune_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(BENCH)
    import tune

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["tune.py"])
    with pytest.raises(SystemExit) as ended:
        tune.main()
    assert ended.value.code == 2
    classes = len(configs.table(90))
    assert re.fullmatch(rf"no CUDA device: \d+ settings in {classes} classes .* not tried\n", capsys.readouterr().out)


FIELDS = ["kernel", "dtype", "bottleneck", "kernel_size", "capability", "block_tokens", "registers", "stack_bytes"]
FIELDS += ["shared_bytes", "warps", "programs_per_sm", "warps_per_sm", "shuffles", "loop_instructions"]
FIELDS += ["unpipelined_loop_loads"]


@pytest.mark.slow
def test_compile_report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows that scripts read, of one adapter; what every chip must keep to is tested above."""
    monkeypatch.syspath_prepend(BENCH)
    import compile_report

    monkeypatch.setattr(compile_report, "ADAPTERS", [(36, "time")])
    monkeypatch.setattr(sys, "argv", ["compile_report.py", "--json", "--capability", "90"])
    compile_report.main()
    rows = json.loads(capsys.readouterr().out)
    assert [(row["kernel"], row["dtype"], row["bottleneck"], *row["kernel_size"]) for row in rows] == [
        (kernel, dtype, 36, 1, 3) for kernel in (*configs.KERNELS, "widened") for dtype in ("bf16", "fp32")
    ]
    for row in rows:
        assert list(row) == FIELDS
        assert row["capability"] == 90
        assert row["stack_bytes"] == 0, row
        assert row["shared_bytes"] <= CHIPS[90].program_shared_kb * 1024, row
        assert row["programs_per_sm"] >= 1, row
        assert row["warps_per_sm"] == row["programs_per_sm"] * row["warps"]
        assert row["unpipelined_loop_loads"] == 0, row
        assert row["shuffles"] <= 1, row
