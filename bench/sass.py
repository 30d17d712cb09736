"""What a program executes, counted in its disassembly (SASS), before, in and after its loops over products.

Counted as they stand: every path of a branch, and instructions whose predicate is false, which are issued all the same.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

MATRIX = ("HMMA", "HGMMA", "UTCHMMA")
INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)([^;]*);")


@dataclass(frozen=True)
class Instruction:
    """One line: its address, the name with suffixes ("LDG.E.128"), and the rest."""

    address: int
    name: str
    operands: str

    @property
    def kind(self) -> str:
        return self.name.split(".")[0]


@dataclass(frozen=True)
class Loop:
    """A loop over products: instructions of a warp for one trip, and before it since the loop before."""

    trips: int
    before: int
    trip: float
    open_loads: int  # loads from memory to registers in one trip: the warp waits for them in the open


@dataclass(frozen=True)
class Code:
    """A program's loops in order, and what follows the last."""

    loops: tuple[Loop, ...]
    after: int

    @property
    def executed(self) -> float:
        """Instructions of one warp from start to end."""
        return self.after + sum(loop.before + loop.trips * loop.trip for loop in self.loops)


def parse(sass: str) -> list[Instruction]:
    """The instructions up to the last EXIT; what follows it (padding, traps) is never reached."""
    found = [Instruction(int(a, 16), name, rest.strip()) for a, name, rest in INSTRUCTION.findall(sass)]
    end = max((n for n, one in enumerate(found) if one.kind == "EXIT"), default=len(found) - 1)
    return [one for one in found[: end + 1] if one.kind != "NOP"]


def read(sass: str, trips: Sequence[int]) -> Code:
    """Divide a program at its loops over products, of which it has one for each number of trips, in this order.

    A loop that ptxas has unrolled is found by its waits for asynchronous copies, one in each trip.

    Raises:
        ValueError: the code has other loops than these.
    """
    code = parse(sass)
    ranges = _loops(code)
    loops, position = [], 0
    for number, count in enumerate(trips):
        if len(ranges) >= len(trips) - number:
            begin, end = ranges.pop(0)
            trip = float(end - begin)
        elif count == 1:  # no loop is left of it: it counts as what stands before the next
            loops.append(Loop(1, 0, 0.0, 0))
            continue
        else:
            limit = ranges[0][0] if ranges else len(code)
            waits = [n for n in range(position, limit) if code[n].name.startswith("DEPBAR")]
            if len(waits) < count:
                raise ValueError(f"loop {number} of {count} trips is neither a branch backwards nor {count} waits")
            begin, end = waits[0], [*waits, limit][count]
            trip = (end - begin) / count
        loads = sum(one.kind == "LDG" for one in code[begin:end]) * (end - begin > 0)
        loops.append(Loop(count, begin - position, trip, round(loads * trip / max(end - begin, 1))))
        position = end
    if ranges:
        raise ValueError(f"the code has {len(ranges)} more loops over products than the {len(trips)} expected")
    return Code(tuple(loops), len(code) - position)


def longest_loop(sass: str) -> int:
    """Instructions of the longest loop, with or without products; 0 where there is none."""
    code = parse(sass)
    return max((end - begin for begin, end in _branches_back(code)), default=0)


def _branches_back(code: list[Instruction]) -> list[tuple[int, int]]:
    """[first, last + 1) of each jump to an instruction before it."""
    place = {one.address: n for n, one in enumerate(code)}
    targets = [re.search(r"\b0x([0-9a-f]+)(?:\s|$)", one.operands) if one.kind == "BRA" else None for one in code]
    begins = [place.get(int(target[1], 16)) if target else None for target in targets]
    return [(begin, n + 1) for n, begin in enumerate(begins) if begin is not None and begin < n]


def _loops(code: list[Instruction]) -> list[tuple[int, int]]:
    """[first, last + 1) of each outermost loop with a matrix product in it."""
    found: list[tuple[int, int]] = []
    for begin, end in _branches_back(code):
        if any(one.kind in MATRIX for one in code[begin:end]):
            found = [pair for pair in found if pair[0] < begin]  # those inside this one
            found.append((begin, end))
    return found
