"""Predicted times of the kernels on a GPU that is not at hand: `python bench/predict.py --gpu h100`, `--json` for rows.

COUNTED: bytes (traffic_model.py, which tests hold against the interpreter), warp instructions and trips of loops in the
compiled code (sass.py), registers and shared memory, hence programs on a multiprocessor, and waves. ASSUMED: what
chips.py says of the chip, and here

- inputs come from memory, not from L2; weights, halos and rows that programs exchange from L2; each tensor of
  [batch, tokens, dim] passes through memory once for each time that the kernel reads or writes it;
- the programs of a launch are alike, and loads of a pipelined loop are asked for `stages - 1` trips ahead;
- a loop's barrier costs 60 ns a trip, its product 150 ns of latency where the result is used at once; a barrier with
  rows that cross through memory 300 ns beyond the load's latency; an exchange by shuffles 1500 ns in all;
- 3 us pass between a launch and its first program, and from its last to the next launch.

The model is a queueing network (queueing.py), run with low, middle and high assumptions. Nothing here is measured.
"""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from typing import Any
from unittest.mock import patch

import torch
from chips import ASSUMPTIONS, GPUS, Gpu, machine
from queueing import Delay, Issue, Load, Product, Step, Store, Wait, run
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sass import Code, longest_loop, read
from shapes import DTYPES, Case, add_shapes, cases
from torch import Tensor
from traffic_model import name_of, tensors, tile_rows, tile_traffic

from fastloaa.adapters.loaa import KERNELS
from fastloaa.kernels import chip
from fastloaa.kernels import launch as launching
from fastloaa.kernels.call import Call
from fastloaa.kernels.launchable import Launch
from fastloaa.kernels.resources import CHIPS, WidenedSample, compile_launch, instructions

LAUNCH_NS, WAVES = 3000.0, 16
BARRIER_NS, RESULT_NS, EXCHANGE_NS, SHUFFLES_NS = 60.0, 150.0, 300.0, 1500.0
LATENCY_SHARE = 0.6  # a launch that keeps no resource busy for this share of its time is bound by latency
LIMITERS = ("dram", "l2", "issue", "tensor", "latency")


@contextmanager
def recorded(gpu: Gpu) -> Iterator[list[Launch]]:
    """The launches inside the block, prepared for a chip and not run; their tensors are of device "meta"."""
    launches: list[Launch] = []
    with (
        patch.object(Launch, "run", lambda launch: launches.append(launch)),
        patch.object(chip, "capability", lambda _: gpu.capability),
        patch.object(chip, "multiprocessors", lambda _: gpu.processors),
    ):
        yield launches


def launches(case: Case, gpu: Gpu) -> list[Launch]:
    """Of a training step: forward, then backward with all gradients."""
    dtype = DTYPES[case.dtype]

    def wide() -> Tensor:
        return torch.empty(case.batch, case.grid.tokens, case.dim, dtype=dtype, device="meta")

    down, up = (
        torch.empty(*size, *KERNELS[case.kernel], dtype=dtype, device="meta", memory_format=torch.channels_last)
        for size in ((case.bottleneck, case.dim), (case.dim, case.bottleneck))
    )
    summands = (wide(), wide()) if case.summands else (None, None)
    settings = (case.freq, case.grid.prefix_tokens, False, 1.0, "gelu", 0.0)
    call = Call(wide(), down, up, None, None, None, *summands, None, None, None, *settings)
    with recorded(gpu) as found:
        _, pre = launching.forward(call, True)
        launching.backward(replace(call, block_out=None, skip=None), wide(), pre, True, True, True)
    return found


@dataclass(frozen=True)
class Compiled:
    """What the compiled code of a launch says."""

    code: str
    registers: int
    per_processor: int


def compiled(launch: Launch, gpu: Gpu) -> Compiled:
    """Compiled once for all launches that differ in numbers of tokens alone."""
    constants = {
        name: value.dtype if isinstance(value, Tensor) else value
        for name, value in launch.arguments.items()
        if name.isupper() or name.startswith(("stride_down", "stride_up")) or isinstance(value, Tensor) or value is None
    }
    return _compiled(_Key(repr((name_of(launch), constants, launch.setting)), launch), gpu)


class _Key(str):
    """Equal where the compiled code is; carries a launch to compile."""

    launch: Launch

    def __new__(cls, key: str, launch: Launch) -> "_Key":
        made = super().__new__(cls, key)
        made.launch = launch
        return made


@cache
def _compiled(key: _Key, gpu: Gpu) -> Compiled:
    used = compile_launch(key.launch, gpu.capability)
    programs = used.programs(CHIPS[gpu.capability], key.launch.setting.warps)
    return Compiled(instructions(key.launch, gpu.capability), used.registers, programs)


def tile_steps(launch: Launch, code: Code) -> list[Step]:
    """A program of the forward or the input gradient: a product over all channels, the exchange, a product to all."""
    a, warps, stages = launch.arguments, launch.setting.warps, launch.setting.stages
    programs = launch.programs[0]
    moved = {name: one.bytes / programs for name, one in tile_traffic(launch).items()}  # of one program
    source, target = ("p_x", "p_out") if "p_x" in a else ("p_dy", "p_dx")
    first, second = ("p_down", "p_up") if source == "p_x" else ("p_up", "p_down")
    open_second = len(code.loops) > 1 and code.loops[1].open_loads > 0
    summands = [moved[name] for name in ("p_block", "p_skip", "p_partial") if name in moved]

    steps: list[Step] = []
    one = code.loops[0]
    products = 2.0 * a["BT"] * a["KP"] * a["D"] / one.trips
    streamed = [(moved[source] / one.trips, (moved[source] + moved[first]) / one.trips)]
    steps += _loop(one, warps, stages, streamed, products, 0.0, BARRIER_NS, tag="down")

    between = (code.loops[1].before if len(code.loops) > 1 else code.after) * warps
    rows, _ = tile_rows(a)
    crossing = rows / programs * a["R"] * a["TAPS"] * next(t.itemsize for n, t in tensors(launch) if n == first)
    steps.append(Issue(between / 2))
    if source == "p_dy":
        steps += [Load("pre", moved["p_pre"], moved["p_pre"]), Wait("pre")]
    if a["TAPS"] > 1 and "p_rows" in a:
        steps += [Store(0, crossing), Delay(EXCHANGE_NS), Load("fold", 0, crossing), Wait("fold")]
        steps += [Store(0, crossing / a["TAPS"]), Delay(EXCHANGE_NS), Load("unfold", 0, crossing), Wait("unfold")]
    else:
        steps.append(Delay(SHUFFLES_NS))
    steps.append(Issue(between / 2))
    kept = sum(moved.get(name, 0.0) for name in (("p_pre",) if source == "p_x" else ("p_dpre", "p_hidden")))
    steps.append(Store(kept, kept))
    if len(code.loops) == 1:
        return steps

    two = code.loops[1]
    weights, stored = moved[second] / two.trips, moved[target] / two.trips
    parts = [each / two.trips for each in summands]
    streamed = [(0.0, weights)] if open_second else [(sum(parts), weights + sum(parts))]
    steps += _loop(
        two, warps, stages, streamed, products, stored, RESULT_NS, tag="up", waits=parts if open_second else []
    )
    return [*steps, Issue(code.after * warps)]


def _loop(
    loop: Any,
    warps: int,
    stages: int,
    streamed: list[tuple[float, float]],
    products: float,
    stored: float,
    latency: float,
    tag: str,
    waits: list[float] | None = None,
) -> list[Step]:
    """The trips of a pipelined loop; `waits` are loads in each trip for which the program waits in the open."""
    ((dram, l2),) = streamed
    ahead = min(stages - 1, loop.trips)
    steps: list[Step] = [Issue(loop.before * warps)] if tag != "up" else []
    steps += [Load((tag, trip), dram, l2) for trip in range(ahead)]
    for trip in range(loop.trips):
        steps.append(Wait((tag, trip)))
        parts = len(waits or []) + 1
        for number, load in enumerate(waits or []):
            steps += [
                Issue(loop.trip * warps / parts),
                Load((tag, trip, number), load, load),
                Wait((tag, trip, number)),
            ]
        steps += [Issue(loop.trip * warps / parts), Product(products), Delay(latency)]
        if stored:
            steps.append(Store(stored, stored))
        if trip + ahead < loop.trips:
            steps.append(Load((tag, trip + ahead), dram, l2))
    return steps


def weight_steps(launch: Launch, code: Code) -> list[Step]:
    """A program of the weight gradients: products summed over its tokens, and the partial sums written."""
    a, warps = launch.arguments, launch.setting.warps
    (loop,) = code.loops
    columns = min(a["BC"], a["R"] * a["TAPS"])
    wide = a["BM"] * a["BD"] * (a["p_x"] if a["DOWN"] else a["p_dy"]).itemsize
    narrow = a["BM"] * columns * a["p_hidden"].itemsize
    once = narrow / (-(-a["D"] // a["BD"]) * a["TAPS"])  # of the narrow rows, what is not in L2 yet
    streamed = [(wide + once, wide + narrow)]
    products = 2.0 * a["BM"] * a["BC"] * a["BD"]
    steps = _loop(loop, warps, launch.setting.stages, streamed, products, 0.0, RESULT_NS, tag="down")
    sums = 4.0 * columns * a["BD"]
    return [*steps, Issue(code.after * warps), Store(sums, sums)]


def streaming_steps(launch: Launch, executed: float, loaded: float, stored: float) -> list[Step]:
    """A program that reads once, computes, and writes once."""
    instructions_ = executed * launch.setting.warps
    return [
        Issue(instructions_ / 4),
        Load("in", loaded, loaded),
        Wait("in"),
        Issue(instructions_ * 3 / 4),
        Store(stored, stored),
    ]


def steps_of(launch: Launch, gpu: Gpu) -> list[Step]:
    """What one program of a launch does."""
    a, name, code = launch.arguments, name_of(launch), compiled(launch, gpu).code
    if name in ("forward", "input_grad"):
        both = [a["D"] // a["BK"]] + [a["D"] // a["BD"]] * bool(a.get("INPUT_GRAD", True))
        return tile_steps(launch, read(code, both))
    if name == "weight_grad":
        return weight_steps(launch, read(code, [-(-a["chunk"] // a["BM"])]))
    programs, given = prod(launch.programs), dict(tensors(launch))
    if name == "weight_sum":
        partial = given.pop("p_partial")
        executed = read(code, []).executed + a["splits"] * longest_loop(code)
        loaded, stored = partial.nbytes, sum(tensor.nbytes for tensor in given.values())
        return streaming_steps(launch, executed, loaded / programs, stored / programs)
    # The pass of the merged model: two kinds of programs, each with its own path through the code. The code of one
    # alone is compiled for the other's share.
    alone = Launch(launch.kernel, launch.programs, {**a, "WIDE_ACT": ""}, launch.setting)
    lines, both = (read(compiled(each, gpu).code, []).executed for each in (alone, launch))
    share = a["shift_programs"] / programs
    executed = share * lines + (1 - share) * (both - lines)
    once = given["p_buffer"].nbytes / programs
    return streaming_steps(launch, executed, once, once)


@dataclass(frozen=True)
class Prediction:
    """Microseconds of one launch, by the low, middle and high assumptions, and what the middle one is limited by."""

    low_us: float
    predicted_us: float
    high_us: float
    limiter: str


def predict(launch: Launch, gpu: Gpu) -> Prediction:
    steps, resident = steps_of(launch, gpu), max(1, compiled(launch, gpu).per_processor)
    element_bytes = min(tensor.itemsize for _, tensor in tensors(launch))
    # Beyond so many waves one is like the other: the time grows with their number.
    programs = prod(launch.programs)
    tried = min(programs, WAVES * resident * gpu.processors)
    times, limiter = [], ""
    for name, assumption in ASSUMPTIONS.items():
        outcome = run(machine(gpu, assumption, element_bytes), tried, resident, steps)
        times.append(round((outcome.end * programs / tried + LAUNCH_NS) / 1e3, 1))
        if name == "middle":
            most = max(outcome.busy, key=lambda resource: outcome.busy[resource])
            limiter = most if outcome.busy[most] >= LATENCY_SHARE * outcome.end else "latency"
    return Prediction(times[0], times[1], times[2], limiter)


PASSES = {
    "forward": ("p_x", "p_block", "p_skip", "p_out"),
    "input_grad": ("p_dy", "p_dx"),
    "weight_grad": ("p_x", "p_dy"),
}


def floor_us(launch: Launch, gpu: Gpu) -> float:
    """Time for the tensors of [batch, tokens, dim] that the kernel must read or write, each once."""
    given = dict(tensors(launch))
    names = PASSES.get(name_of(launch), given.keys())
    passes = 2 if "p_buffer" in given else 1  # in place: read and written
    bytes_ = passes * sum(t.nbytes for name, t in given.items() if name in names)
    return round(bytes_ / gpu.dram_gbps / 1e3, 1)


def rows(case: Case, gpu: Gpu) -> list[dict[str, Any]]:
    """One for each launch of a training step, and for the pass of the merged model."""
    widened = WidenedSample(
        DTYPES[case.dtype], case.bottleneck, KERNELS[case.kernel], case.dim, case.batch, case.freq, case.time
    )
    found = []
    for launch in [*launches(case, gpu), widened.launch()]:
        name, predicted = name_of(launch), predict(launch, gpu)
        found.append(
            {
                "bench": "predict",
                "gpu": gpu.name,
                "kernel": name.removesuffix("_activation"),
                "axis": case.kernel,
                **{field: getattr(case, field) for field in ("batch", "freq", "time", "dim", "bottleneck", "dtype")},
                **predicted.__dict__,
                "floor_us": floor_us(launch, gpu),
            }
        )
    return found


def table(gpu: Gpu, found: list[dict[str, Any]]) -> Table:
    made = Table(title=f"{gpu.name}: predicted microseconds, nothing measured", title_justify="left")
    for column in ("shape", "kernel", "low", "predicted", "high", "floor", "of floor", "limited by"):
        made.add_column(
            column, justify="left" if column in ("shape", "kernel", "limited by") else "right", no_wrap=True
        )
    for row in found:
        shape = f"{row['batch']}x{row['freq']}x{row['time']} r{row['bottleneck']} {row['axis']} {row['dtype']}"
        numbers = [f"{row[name]:.1f}" for name in ("low_us", "predicted_us", "high_us", "floor_us")]
        made.add_row(shape, row["kernel"], *numbers, f"{row['predicted_us'] / row['floor_us']:.2f}", row["limiter"])
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", choices=list(GPUS), required=True)
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    add_shapes(parser)
    arguments = parser.parse_args()
    gpu, console = GPUS[arguments.gpu], Console(stderr=True)
    found = []
    for case in track(cases(arguments, on_gpu=True), "predicting", console=console, transient=True):
        found += rows(case, gpu)
    if arguments.json:
        print(json.dumps(found))
    else:
        Console(width=None if console.is_terminal else 120).print(table(gpu, found))


if __name__ == "__main__":
    main()
