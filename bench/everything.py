"""One command for `bench/results/`: `python bench/everything.py` measures all there is on this machine and draws it.

First the kernels are tested, since figures of wrong kernels are worth nothing; on a CPU that is Triton's interpreter.
Then every bench runs with its defaults, in an order that puts first what is missed most if time runs out. A bench that
fails does not stop the others; the exit status says so at the end. `--only` takes some of them, `--seconds` ends each.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

BENCH = Path(__file__).resolve().parent
TESTS = "tests"
PARALLEL = ("-n", "auto") if find_spec("xdist") else ()  # compiling is most of it: minutes become one
STEPS: dict[str, tuple[str, ...]] = {
    TESTS: ("-m", "pytest", "-q", *PARALLEL, "tests/test_kernels.py"),
    "speed": ("bench/speed.py", "--save"),
    "training": ("bench/training.py", "--save"),
    "inference": ("bench/inference.py", "--save"),
    "frontend": ("bench/frontend.py", "--save"),
    "exported": ("bench/exported.py", "--save"),
}


def run(names: Sequence[str], seconds: float | None, console: Console) -> list[str]:
    """Run the steps one after the other and draw what they saved; what failed."""
    before, failed = time.time(), []
    for name in names:
        console.rule(f"{name}: python {' '.join(STEPS[name])}")
        since = time.perf_counter()
        try:
            failure = subprocess.run([sys.executable, *STEPS[name]], cwd=BENCH.parent, timeout=seconds).returncode
        except subprocess.TimeoutExpired:
            failure = 1
        console.print(f"{name}: {'failed' if failure else 'done'} after {time.perf_counter() - since:.0f} s")
        if failure:
            failed.append(name)
            if name == TESTS:
                console.print("the kernels are wrong here, or cannot be tested; nothing was timed")
                return failed
    new = [path for path in sorted((BENCH / "results").glob("*.json")) if path.stat().st_mtime >= before]
    if new and subprocess.run([sys.executable, BENCH / "plot.py", *new], check=False).returncode:
        failed.append("plot")
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", choices=list(STEPS), default=list(STEPS), help="some of them, in this order"
    )
    parser.add_argument("--seconds", type=float, help="end each after so long; default: when it is done")
    arguments = parser.parse_args()
    if failed := run(arguments.only, arguments.seconds, Console()):
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
