"""A launch as a closed queueing network: programs that share memory, L2, issue slots and tensor cores.

A program is a list of steps, taken in order. A multiprocessor holds a number of programs at a time and starts the next
where one ends. Each resource serves requests in the order in which they come, at its rate; loads come back a latency
later, and a program waits for them where it says so. Times are in nanoseconds.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

START_NS = 300.0  # from the end of a program to the first instruction of the next on its multiprocessor, assumed


class Load(NamedTuple):
    """Ask for bytes from memory and from L2 (those from memory pass through it); `Wait` with the same tag for them."""

    tag: object
    dram: float
    l2: float


class Wait(NamedTuple):
    tag: object


class Store(NamedTuple):
    """Nobody waits for what is written."""

    dram: float
    l2: float


class Issue(NamedTuple):
    """Warp instructions, of all warps of the program."""

    instructions: float


class Product(NamedTuple):
    """Operations on the multiprocessor's tensor cores, counted as multiplications and additions."""

    operations: float


class Delay(NamedTuple):
    nanoseconds: float


Step = Load | Wait | Store | Issue | Product | Delay


@dataclass(frozen=True)
class Machine:
    """Rates per nanosecond: bytes of memory and of L2 for all, instructions and tensor operations a multiprocessor."""

    processors: int
    dram: float
    l2: float
    issue: float
    tensor: float
    dram_latency: float
    l2_latency: float


@dataclass
class Outcome:
    """When all was done, and how long each resource was busy; of those a multiprocessor has, the busiest."""

    end: float = 0.0
    busy: dict[str, float] = field(default_factory=dict)


def run(machine: Machine, programs: int, resident: int, steps: Sequence[Step]) -> Outcome:
    """`programs` equal programs, `resident` at a time on each multiprocessor."""
    free = {"dram": 0.0, "l2": 0.0}
    busy = {"dram": 0.0, "l2": 0.0}
    issue, tensor = [0.0] * machine.processors, [0.0] * machine.processors
    issue_busy, tensor_busy = [0.0] * machine.processors, [0.0] * machine.processors

    def shared(name: str, now: float, amount: float) -> float:
        rate = machine.dram if name == "dram" else machine.l2
        free[name] = max(free[name], now) + amount / rate
        busy[name] += amount / rate
        return free[name]

    slots = [(0.0, slot) for slot in range(min(programs, resident * machine.processors))]
    started, end = len(slots), 0.0
    at = [0] * len(slots)
    back: list[dict[object, float]] = [{} for _ in slots]
    while slots:
        now, slot = heapq.heappop(slots)
        if at[slot] == len(steps):
            end = max(end, now)
            if started < programs:
                started += 1
                at[slot], back[slot] = 0, {}
                heapq.heappush(slots, (now + START_NS, slot))
            continue
        step, processor = steps[at[slot]], slot % machine.processors
        at[slot] += 1
        if isinstance(step, Load):
            done = now
            if step.l2:
                done = shared("l2", now, step.l2) + machine.l2_latency
            if step.dram:
                done = max(done, shared("dram", now, step.dram) + machine.dram_latency)
            back[slot][step.tag] = done
        elif isinstance(step, Wait):
            now = max(now, back[slot].pop(step.tag))
        elif isinstance(step, Store):
            shared("dram", now, step.dram)
            shared("l2", now, step.l2)
        elif isinstance(step, Delay):
            now += step.nanoseconds
        else:
            queue, sums = (issue, issue_busy) if isinstance(step, Issue) else (tensor, tensor_busy)
            time = step[0] / (machine.issue if isinstance(step, Issue) else machine.tensor)
            now = queue[processor] = max(queue[processor], now) + time
            sums[processor] += time
        heapq.heappush(slots, (now, slot))
    busy |= {"issue": max(issue_busy), "tensor": max(tensor_busy)}
    return Outcome(max(end, *free.values()), busy)
