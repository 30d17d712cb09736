"""The whole-model benches: each script from its command line at the smallest size, and what they compute with."""

import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
import torch
from rich.console import Console

from helpers.onnx_files import write_listener

BENCH = Path(__file__).parents[1] / "bench"
TINY = ["--batch", "2", "--grid", "8x2", "--depth", "1", "--dim", "64", "--rounds", "2", "--device", "cpu"]
SAVE = """
import sys
from pathlib import Path
sys.path.insert(0, {bench!r})
import timing
timing.RESULTS = Path({results!r})
timing.machine = lambda device: {{"gpu": None, "cpu": "a test", "torch": "2", "date": "today", "commit": "none"}}
import {script} as script
sys.argv = [{script!r}, "--save", *{arguments!r}]
script.main()
import plot
print(plot.plot(Path({results!r}) / "{script}-cpu-today.json"))
"""


def run(script: str, arguments: list[str], results: Path) -> list[dict[str, object]]:
    """Rows that `script --save` wrote, after its picture has been drawn."""
    code = SAVE.format(bench=str(BENCH), results=str(results), script=script, arguments=arguments)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (results / f"{script}-cpu-today.png").read_bytes().startswith(b"\x89PNG")
    return json.loads((results / f"{script}-cpu-today.json").read_text())["rows"]


@pytest.mark.slow
def test_training(tmp_path: Path) -> None:
    rows = {row["provider"]: row for row in run("training", TINY, tmp_path)}
    head = 2 * 64 + 64 * 50 + 50
    adapters = 2 * 2 * 64 * 36 * 3  # two sites, down and up, three taps
    assert rows["backbone"]["trainable"] == head
    assert rows["backbone"]["ratio"] == 1
    equal = ("LoAA r=36 torch", "LoAA r=36 reference", "parallel r=108", "LoRA r=72")
    assert {name: rows[name]["trainable"] for name in equal} == dict.fromkeys(equal, head + adapters)
    assert {"LoAA r=72 torch", "Convpass r=8", "full fine-tuning"} <= set(rows)
    assert all(row["peak_mb"] is None for row in rows.values())
    assert 0 < rows["LoAA r=36 torch"]["kept_mb"] < rows["LoAA r=36 reference"]["kept_mb"]


@pytest.mark.slow
def test_switching(tmp_path: Path) -> None:
    rows = run("switching", TINY, tmp_path)
    assert [str(row["provider"]).partition(",")[0] for row in rows] == ["backbone", "adapted", *["by name"] * 3]
    assert all(row["median_ms"] > 0 for row in rows)  # type: ignore[operator]


@pytest.mark.slow
def test_inference(tmp_path: Path) -> None:
    rows = run("inference", [*TINY, "--only", "LoAA"], tmp_path)
    assert [row["provider"] for row in rows] == [
        "backbone",
        *(f"LoAA r={rank} {backend}" for rank in (36, 72) for backend in ("reference", "torch")),
        *(f"LoAA r={rank} merged" for rank in (36, 72)),
    ]
    for row in rows:
        assert row["clips_per_s"] == pytest.approx(2e3 / row["median_ms"], rel=0.01)


@pytest.mark.slow
def test_frontend(tmp_path: Path) -> None:
    rows = run("frontend", ["--batch", "2", "--seconds", "1", "--rounds", "2", "--device", "cpu"], tmp_path)
    assert [row["provider"] for row in rows] == [
        "front end",
        *(f"{name}, {workers} workers" for workers in (0, 2) for name in ("front end", "kaldi.fbank")),
    ]


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(BENCH)
    import models

    return models


def test_ratio_is_taken_within_each_round(models: object) -> None:
    """A machine that is slow in one round is slow for both, and must not move the ratio."""
    timing = sys.modules["timing"].Timing
    assert models.ratio(timing((2.0, 20.0, 3.0)), timing((1.0, 10.0, 2.0))) == 2.0  # type: ignore[attr-defined]


def test_the_floor_has_a_gradient_back_to_the_first_block(models: object) -> None:
    import training

    case = models.Case(2, 8, 2, 2, 64, "fp32")  # type: ignore[attr-defined]
    step = training.Step(models.Variant("backbone", "probe", {}), case, torch.device("cpu"))  # type: ignore[attr-defined]
    reached = []
    step.model.backbone.blocks[0].attn.qkv.register_full_backward_hook(lambda *_: reached.append(True))
    before = step.model.head[1].weight.clone()
    step(0)
    assert reached
    assert not torch.equal(step.model.head[1].weight, before)
    assert not any(p.requires_grad for p in step.model.backbone.parameters())


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """With steps that do next to nothing: one that passes and leaves results, one that fails, one that never ends."""
    monkeypatch.syspath_prepend(BENCH)
    import everything

    monkeypatch.setattr(everything, "BENCH", tmp_path / "bench")
    (tmp_path / "bench" / "results").mkdir(parents=True)
    (tmp_path / "bench" / "plot.py").write_text("import sys; open('drawn', 'w').write(' '.join(sys.argv[1:]))")
    (tmp_path / "bench" / "results" / "old.json").touch()
    os.utime(tmp_path / "bench" / "results" / "old.json", (0, 0))
    steps = {
        "speed": ("-c", "open('bench/results/speed.json', 'w')"),
        "tests": ("-c", "raise SystemExit(1)"),
        "training": ("-c", "raise SystemExit(1)"),
        "inference": ("-c", "import time; time.sleep(600)"),
    }
    monkeypatch.setattr(everything, "STEPS", steps)
    return everything


def test_everything_goes_on_past_what_fails(
    everything: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = StringIO()
    assert everything.run(["training", "inference", "speed"], 3, Console(file=said)) == ["training", "inference"]
    assert "speed: done after" in said.getvalue()
    assert (tmp_path / "drawn").read_text() == str(tmp_path / "bench" / "results" / "speed.json")


def test_nothing_is_timed_with_wrong_kernels(everything: ModuleType, tmp_path: Path) -> None:
    assert everything.run(["tests", "speed"], None, Console(quiet=True)) == ["tests"]
    assert not (tmp_path / "bench" / "results" / "speed.json").exists()


def test_the_host_is_timed_without_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CPU tensors, in both modes; were a kernel launched there, Triton would look for a GPU and find none."""
    monkeypatch.syspath_prepend(BENCH)
    import host

    rows = host.rows(host.measure(torch.device("cpu"), rounds=2))
    assert {(row["provider"], row["mode"]) for row in rows} == {
        (name, mode)
        for name in (
            "fused",
            "fused, module",
            "fused, weights as trained",
            "fused, module, weights as trained",
            "torch",
            "nn.Linear",
        )
        for mode in ("forward", "forward+backward")
    }
    for row in rows:
        assert row["ratio"] > 0
        assert (row["ratio"] == 1) == (row["provider"] == "nn.Linear")


def test_imports_are_timed_as_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)
    import imports

    quick = {name: [sys.executable, "-c", "pass"] for name in ("python -c pass", imports.TORCH)}
    monkeypatch.setattr(imports, "COMMANDS", quick)
    rows = {row["provider"]: row for row in imports.rows(imports.measure(rounds=1))}
    assert rows.keys() == quick.keys()
    assert rows[imports.TORCH]["over_torch_ms"] == 0
    monkeypatch.setattr(imports, "COMMANDS", quick | {"broken": [sys.executable, "-c", "raise SystemExit(1)"]})
    with pytest.raises(subprocess.CalledProcessError):
        imports.measure(rounds=1)


def test_runtimes_are_asked_in_processes_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One answers, one cannot open the file, one dies: the table has a line for each."""
    monkeypatch.syspath_prepend(BENCH)
    import runtimes

    ports = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 4]) for name in ("x", "logits")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["logits"])], "g", ports[:1], ports[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, tmp_path / "relu.onnx")
    np.arange(8, dtype=np.float32).tofile(tmp_path / "samples.raw")
    asked = [sys.executable, str(BENCH / "runtimes_worker.py")]
    workers = {
        runtimes.NEWEST: runtimes.Worker([*asked, "onnxruntime"], tmp_path),
        "not installed": runtimes.Worker([*asked, "openvino"], tmp_path),
        "dead": runtimes.Worker([sys.executable, "-c", "raise SystemExit(3)"], tmp_path),
    }
    found = runtimes.compare(workers, tmp_path / "relu.onnx", tmp_path / "samples.raw", (2, 4), rounds=1)
    for name in ("not installed", "dead"):
        workers[name].end()
    assert (found[runtimes.NEWEST]["difference"], found[runtimes.NEWEST]["ratio"]) == (0, 1)
    assert "openvino" in found["not installed"]["error"]
    refused = workers[runtimes.NEWEST].ask(load=str(tmp_path / "nowhere.onnx"))["error"]
    workers[runtimes.NEWEST].end()
    assert f"{tmp_path.name}/nowhere.onnx" in refused
    assert str(tmp_path.parent) not in refused
    assert found["dead"]["error"] == "the process ended with 3"
    rows = [{"provider": name, "opset": 18, "dtype": "fp32", "error": None, **said} for name, said in found.items()]
    assert [line.count("–") for line in runtimes.table(rows, "fp32").splitlines()] == [0, 0, 0, 1, 1]


def test_the_tables_of_runtimes_go_into_a_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(BENCH)
    import runtimes
    import timing

    rows = [
        {
            "provider": f"{name} 1",
            "batch": 2,
            "opset": opset,
            "dtype": dtype,
            "error": None,
            "difference": 3e-4 * (opset == 17),
            "ratio": 1,
        }
        for dtype in ("fp32", "int8")
        for opset in (23, 17)
        for name in ("onnxruntime", "another")
    ]
    part = runtimes.page_part(rows, {"date": "today", "commit": "abc1234", "cpu": "a test"}, "python bench/x.py --save")
    assert [line for line in part.splitlines() if line.startswith("|") and "opset" in line] == [
        "| fp32 | opset 17 | opset 23 |",
        "| int8 | opset 17 | opset 23 |",
    ]
    assert part.count("| another 1 | 3e-4, 1.00 | 0, 1.00 |") == 2
    assert "`python bench/x.py --save`, today, commit abc1234" in part
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- here -->\nold\n<!-- end of here -->\nbehind\n")
    for _ in range(2):  # the marks stay
        timing.put_into(page, "here", part)
        assert page.read_text() == f"before\n<!-- here -->\n{part}<!-- end of here -->\nbehind\n"
    with pytest.raises(ValueError, match="elsewhere"):
        timing.put_into(page, "elsewhere", part)
    assert f"<!-- {runtimes.PLACE} -->\n" in runtimes.PAGE.read_text()


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCH)
    import serving

    return serving


@pytest.mark.slow
def test_the_server_is_loaded(serving: ModuleType, tmp_path: Path) -> None:
    model = write_listener(tmp_path / "small.onnx", ("wren", "crow", "owl"))
    rows = serving.measure(model, clients=4, total=60, rounds=2)
    assert [row["batch"] for row in rows] == [1, 8]
    assert all((row["requests"], row["broken"]) == (60, 6) for row in rows)
    assert rows[0]["runs"] == rows[0]["windows"] == rows[1]["windows"] >= 54
    assert all(0 < row["p50_ms"] <= row["p95_ms"] for row in rows)


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (500, {"error": "?"}),
        (200, {"top": [{"label": "wren", "probability": 0.7}]}),
        (200, {"top": [{"label": "wren", "probability": 0.70002}, {"label": "crow", "probability": 0.3}]}),
    ],
)
def test_a_wrong_answer_of_the_server_is_seen(serving: ModuleType, status: int, answer: dict[str, object]) -> None:
    asked = serving.Asked(b"", "", 200, {"wren": 0.7, "crow": 0.3})
    right = [{"label": "crow", "probability": 0.3}, {"label": "wren", "probability": 0.700001}]
    asked.check(200, json.dumps({"top": right}).encode())
    with pytest.raises(AssertionError):
        asked.check(status, json.dumps(answer).encode())
