"""Load `fastloaa serve` from this machine and check each answer: `python bench/serving.py`, `--save` for the figures.

Two servers of one model, with batches and without (`--batch-size 1`), take turns: clients, a thread and a connection
each, ask as fast as they are answered. Of ten requests one is broken. A single answer that is missing, has another
status than it should, or differs from `Classifier`'s own by more than 1e-5 ends the bench with an error. Clients and
server share the machine's cores; times are from a request's first byte to its answer's last, of those with labels. On a
machine with other work they say little, and the server's own CPU time for a request says more.
"""

import argparse
import http.client
import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import soundfile
import torch
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table
from timing import Timing, describe, save

from fastloaa import AST
from fastloaa.export import Classifier, to_onnx

WEIGHTS = Path(__file__).parents[1] / "examples" / "backbones" / "deit_tiny_depth6_tiny_imagenet.safetensors"
SOUNDS, TOLERANCE, PATIENCE = 60, 1e-5, 300.0  # sounds; seconds for an answer
BATCHED, ALONE = "up to 8 windows", "one window"


@dataclass(frozen=True)
class Asked:
    """A request, and the answer that is right."""

    content: bytes
    query: str
    status: int
    expected: dict[str, float] = field(default_factory=dict)

    def check(self, status: int, body: bytes) -> None:
        """Raise AssertionError at any other answer."""
        answer = json.loads(body)
        assert status == self.status, f"answered {status}, expected {self.status}: {answer}"
        if status != 200:
            assert list(answer) == ["error"], answer
            return
        found = {each["label"]: each["probability"] for each in answer["top"]}
        assert found.keys() == self.expected.keys(), answer
        worst = max(abs(found[label] - self.expected[label]) for label in found)
        assert worst <= TOLERANCE, f"off by {worst}"


def small_model(path: Path) -> None:
    """Six blocks, 192 wide, of the weights that the repository holds; windows of a second; a head of random weights."""
    torch.manual_seed(0)
    options = {"depth": 6}
    model = AST(10, frames=100, backbone="deit_tiny_distilled_patch16_224", backbone_options=options, weights=WEIGHTS)
    torch.nn.init.normal_(model.head[-1].weight, std=0.2)  # type: ignore[arg-type, index]
    to_onnx(model.eval(), path)


def requests(classifier: Classifier, folder: Path) -> Iterator[Asked]:
    """Half of the sounds are one window long, a quarter shorter, a quarter longer; in several formats."""
    rng = np.random.default_rng(0)
    rate, window = classifier.metadata.sample_rate or 0, classifier.metadata.samples or 0
    classes = len(classifier.metadata.labels)
    good = []
    for number in range(SOUNDS):
        share = (1.0, rng.uniform(0.2, 1.0), 1.0, rng.uniform(2, 4))[number % 4]
        form, times, channels = (("WAV", 1, 1), ("FLAC", 1, 2), ("WAV", 3, 2))[number % 3]
        samples = rng.uniform(-1, 1, (int(share * window) * times, channels)) * rng.uniform(0.01, 1)
        good.append(encoded(samples, rate * times, form))
    paths = [folder / str(number) for number in range(SOUNDS)]
    for path, content in zip(paths, good, strict=True):
        path.write_bytes(content)
    answers = []
    for heard in classifier.classify(paths, top=classes):
        assert heard.error is None
        answers.append(dict(zip(heard.labels, heard.probabilities, strict=True)))
    query = f"model=bench&top={classes}"
    nan = encoded(np.full((window, 1), np.nan), rate, "WAV", "FLOAT")
    broken = [
        Asked(b"no sound at all", query, 422),
        Asked(good[0][:-100], query, 422),
        Asked(b"", query, 400),
        Asked(good[0], "model=other", 404),
        Asked(nan, query, 422),
        Asked(good[0], f"{query}&hop=-1", 422),
    ]
    number = 0
    while True:
        if number % 10 == 9:
            yield broken[number // 10 % len(broken)]
        else:
            yield Asked(good[number % SOUNDS], query, 200, answers[number % SOUNDS])
        number += 1


def encoded(samples: Any, rate: int, form: str, subtype: str | None = None) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, samples, rate, format=form, subtype=subtype)
    return content.getvalue()


@contextmanager
def server(model: Path, batch_size: int) -> Iterator[int]:
    """`fastloaa serve` as a process; its port."""
    options = ["--port", "0", "--batch-size", str(batch_size)]
    command = [sys.executable, "-m", "fastloaa.cli", "serve", f"bench={model}", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline().split()[0].rpartition(":")[2])
        finally:
            process.terminate()
    assert process.returncode == 0, f"the server ended with {process.returncode}"


def load(port: int, asked: Sequence[Asked], clients: int) -> tuple[list[float], float]:
    """Milliseconds of each request that was answered with labels, and seconds for all."""
    waiting, lock, took = iter(asked), threading.Lock(), list[float]()

    def client() -> int:
        connection, count = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE), 0
        while True:
            with lock:
                one = next(waiting, None)
            if one is None:
                return count
            since = time.perf_counter()
            connection.request("POST", f"/predict?{one.query}", one.content)
            response = connection.getresponse()
            body = response.read()
            if one.status == 200:
                took.append((time.perf_counter() - since) * 1e3)
            one.check(response.status, body)
            count += 1

    begin = time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        answered = sum(future.result() for future in [threads.submit(client) for _ in range(clients)])
    seconds = time.perf_counter() - begin
    assert answered == len(asked), f"{answered} answers to {len(asked)} requests"
    return took, seconds


def counted(port: int) -> dict[str, float]:
    """What the server says of itself, summed over labels."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("GET", "/metrics")
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(connection.getresponse().read().decode()):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


def measure(model: Path, clients: int, total: int, rounds: int) -> list[dict[str, Any]]:
    """The rows of both servers, which take turns."""
    sizes = {ALONE: 1, BATCHED: 8}
    took: dict[str, list[float]] = {name: [] for name in sizes}
    seconds = dict.fromkeys(sizes, 0.0)
    with TemporaryDirectory() as folder, ExitStack() as stack:
        asked = list(islice(requests(Classifier(model), Path(folder)), total))
        ports = {name: stack.enter_context(server(model, size)) for name, size in sizes.items()}
        for port in ports.values():
            load(port, asked[:clients], clients)  # warm-up
        before = {name: counted(port) for name, port in ports.items()}
        for turn in range(rounds):
            part = asked[total * turn // rounds : total * (turn + 1) // rounds]
            for name in list(sizes) if turn % 2 else reversed(sizes):
                found, spent = load(ports[name], part, clients)
                took[name] += found
                seconds[name] += spent
        after = {name: counted(port) for name, port in ports.items()}
    counts = {name: {key: after[name][key] - before[name].get(key, 0) for key in after[name]} for name in sizes}
    for name, count in counts.items():
        assert count["fastloaa_requests_total"] == total, f"{name}: counted {count}, sent {total}"
    return [
        {
            "bench": "serving",
            "provider": name,
            "mode": "forward",
            "clients": clients,
            "requests": total,
            "broken": sum(one.status != 200 for one in asked),
            "batch": size,
            "runs": counts[name]["fastloaa_batch_windows_count"],
            "windows": counts[name]["fastloaa_batch_windows_sum"],
            "cpu_ms": counts[name]["process_cpu_seconds_total"] * 1e3 / total,
            "p50_ms": Timing(tuple(took[name])).median,
            "p95_ms": Timing(tuple(took[name])).percentile(95),
            "requests_per_s": total / seconds[name],
            "busy": counts[name]["fastloaa_run_seconds_sum"] / seconds[name],
            "ratio": seconds[name] / seconds[ALONE],
        }
        for name, size in sizes.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="an exported file; default: a small one of examples/backbones")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=2000, help="to each server")
    parser.add_argument("--rounds", type=int, default=4, help="turns that they are spread over")
    parser.add_argument("--save", action="store_true", help="write the figures to bench/results/")
    arguments = parser.parse_args()

    console, device = Console(), torch.device("cpu")
    console.print(describe(device), soft_wrap=True)
    with TemporaryDirectory() as folder:
        model = arguments.model or Path(folder) / "small.onnx"
        if arguments.model is None:
            small_model(model)
        rows = measure(model, arguments.clients, arguments.requests, arguments.rounds)
    first = rows[0]
    title = f"{first['clients']} clients, {first['requests']} requests, {first['broken']} of them broken: all answered"
    table = Table(title=title, title_justify="left")
    for heading in ("a run", "p50, ms", "p95, ms", "requests/s", "CPU, ms", "in a run", "busy"):
        table.add_column(heading, justify="left" if heading == "a run" else "right", no_wrap=True)
    for row in rows:
        per_run = row["windows"] / row["runs"]
        figures = (row["p50_ms"], row["p95_ms"], row["requests_per_s"], row["cpu_ms"], per_run)
        table.add_row(row["provider"], *(f"{figure:.1f}" for figure in figures), f"{row['busy']:.0%}")
    console.print(table)
    if arguments.save:
        console.print(f"saved to {save('serving', device, rows)}")


if __name__ == "__main__":
    main()
