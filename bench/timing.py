"""Timing whose ratios can be trusted: candidates in turns, in rotating order, over rotating inputs, in one process."""

import datetime
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from fastloaa.files import replacing, write_json

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Timing:
    """Milliseconds per call over all rounds; `walls` are the host's own where `samples` are the device's."""

    samples: tuple[float, ...]
    walls: tuple[float, ...] = ()

    @property
    def best(self) -> float:
        return min(self.samples)

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def wall(self) -> float:
        """Median from call to call, the host's work and what waits for it included."""
        return statistics.median(self.walls or self.samples)

    def percentile(self, share: int) -> float:
        if len(self.samples) == 1:
            return self.best
        return statistics.quantiles(self.samples, n=100, method="inclusive")[share - 1]


def in_turns(
    candidates: dict[str, Callable[[int], Any]],
    device: torch.device,
    rounds: int,
    calls: int = 3,
    queued: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time each candidate `rounds` times, all of them in every round, each round starting with another one.

    A candidate is called with a running number, by which it picks its inputs: on a GPU no tensor should be served
    from the cache because the call before has just read it. A sample is the mean of `calls` calls.

    Args:
        queued: on a GPU, time what the device does, with all calls in its queue before it reaches the first; wall time
            stands beside it. For kernels, whose launches take the host longer than the device. Whole models are timed
            as they run.
        clock: on a CPU, seconds of the wall, or time.process_time for work of one thread on a machine that has other
            work.

    Raises:
        RuntimeError: a candidate waits for the device, so that its queue cannot be filled.
    """
    names = list(candidates)
    samples: dict[str, list[float]] = {name: [] for name in names}
    walls: dict[str, list[float]] = {name: [] for name in names}
    for name in names:  # warm-up: allocator, thread pools, compilation
        for call in range(3):
            candidates[name](call)
    queue = Queue(device) if queued and device.type == "cuda" else None
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            first = turn * calls
            if queue:
                samples[name].append(queue.sample(candidates[name], first, calls))
                walls[name].append(_wall(candidates[name], device, first, calls))
            else:
                samples[name].append(_sample(candidates[name], device, first, calls, clock))
    return {name: Timing(tuple(values), tuple(walls[name])) for name, values in samples.items()}


class Queue:
    """Keeps a GPU busy with copies while the host puts the calls to be timed behind them."""

    MOST = 1 << 14  # copies, some seconds of them

    def __init__(self, device: torch.device, bytes_: int = 1 << 28) -> None:
        self.source = torch.zeros(bytes_, dtype=torch.int8, device=device)
        self.target = torch.empty_like(self.source)
        self.copies = 4

    def sample(self, candidate: Callable[[int], Any], first: int, calls: int) -> float:
        """Milliseconds of the device per call."""
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        while self.copies <= self.MOST:
            torch.cuda.synchronize()
            for _ in range(self.copies):
                self.target.copy_(self.source)
            start.record()
            for call in range(first, first + calls):
                candidate(call)
            end.record()
            full = not start.query()  # the device has not reached the first call: it will find the others waiting
            torch.cuda.synchronize()
            if full:
                return start.elapsed_time(end) / calls
            self.copies *= 2
        raise RuntimeError("a candidate waits for the device, or launches for seconds; time it with queued=False")


def _sample(
    candidate: Callable[[int], Any], device: torch.device, first: int, calls: int, clock: Callable[[], float]
) -> float:
    if device.type == "cuda":
        return _wall(candidate, device, first, calls)
    candidate(first)  # brings code and weights back into the cache after the candidate before
    begin = clock()
    for call in range(first, first + calls):
        candidate(call)
    return (clock() - begin) * 1e3 / calls


def _wall(candidate: Callable[[int], Any], device: torch.device, first: int, calls: int) -> float:
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for call in range(first, first + calls):
        candidate(call)
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) * 1e3 / calls


def copy_bandwidth(device: torch.device, bytes_: int = 1 << 28) -> float:
    """Bytes read and written per second by a plain copy, measured now."""
    source = torch.rand(bytes_ // 4, device=device)
    target = torch.empty_like(source)
    timing = in_turns({"copy": lambda _: target.copy_(source)}, device, rounds=20, calls=1, queued=True)["copy"]
    return 2 * bytes_ / (timing.best * 1e-3)


def machine(device: torch.device) -> dict[str, Any]:
    """What a figure must name: processor, versions, date, commit."""
    found: dict[str, Any] = {
        "gpu": None,
        "cpu": f"{_cpu_name()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "triton": version("triton"),
        "cuda": torch.version.cuda,
        "onnxruntime": _onnxruntime(),
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
    }
    if device.type == "cuda":
        query = "clocks.sm,clocks.mem,clocks.max.sm,power.limit,driver_version"
        smi = subprocess.run(
            ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"], capture_output=True, text=True, check=False
        )
        found |= {"gpu": torch.cuda.get_device_name(device), "clocks": {"query": query, "value": smi.stdout.strip()}}
    return found


def _commit() -> str:
    """The checkout's, "-dirty" where its code has changed since; words, and results written before, are no code."""

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, cwd=RESULTS.parents[1])

    changed = git(
        "diff", "--quiet", "HEAD", "--", ".", ":(exclude)bench/results", ":(exclude)docs", ":(exclude)README.md"
    ).returncode
    return git("rev-parse", "--short", "HEAD").stdout.strip() + ("-dirty" if changed else "")


def _onnxruntime() -> str | None:
    """Either build of it, if there is one."""
    for name in ("onnxruntime", "onnxruntime-gpu"):
        with suppress(PackageNotFoundError):
            return f"{name} {version(name)}"
    return None


def _cpu_name() -> str:
    """With the vector instructions that PyTorch uses, and whether there are those that multiply bytes."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), set())
    vectors = [torch.backends.cpu.get_cpu_capability(), *(["VNNI"] if flags & {"avx512_vnni", "avx_vnni"} else [])]
    return f"{names[0] if names else platform.processor() or platform.machine()} ({', '.join(vectors)})"


def save(bench: str, device: torch.device, rows: Sequence[dict[str, Any]]) -> Path:
    """Write `bench/results/<bench>-<gpu or cpu>-<date>.json`."""
    about = machine(device)
    processor = (about["gpu"] or "cpu").lower().replace(" ", "-")
    path = RESULTS / f"{bench}-{processor}-{about['date']}.json"
    write_json(path, {"machine": about, "rows": list(rows)})
    return path


def describe(device: torch.device) -> str:
    """One line for the head of a printed table."""
    return json.dumps(machine(device))


def put_into(page: Path, place: str, text: str) -> None:
    """Write lines between `<!-- place -->` and `<!-- end of place -->` of a page of the documentation.

    Raises:
        ValueError: the page has no such place.
    """
    begin, end = f"<!-- {place} -->\n", f"<!-- end of {place} -->\n"
    before, found, rest = page.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{page}: expected {begin.strip()} and {end.strip()} behind it, a line each")
    with replacing(page) as temporary:
        temporary.write_text(f"{before}{begin}{text}{end}{after}")
