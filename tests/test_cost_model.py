"""Predicted times: what is counted in the code, the model against closed forms, and the command line."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCH)
    import predict

    return predict


@pytest.fixture
def queueing(bench: ModuleType) -> ModuleType:
    return sys.modules["queueing"]


def disassembled(*lines: str) -> str:
    """As cuobjdump prints it, 16 bytes an instruction, each with its encoding."""
    return "\n".join(
        f"        /*{16 * n:04x}*/            {line} ;      /* 0x00000a00ff017b82 */\n    /* 0x000e700000000800 */"
        for n, line in enumerate(lines)
    )


def test_loops_are_found_by_their_branches_back(bench: ModuleType) -> None:
    sass = disassembled(
        "LDC R1, c[0x0][0x28]",
        "@!P0 BRA 0x10",  # a wait, no product in it
        "LDGSTS.E.BYPASS.128 [R1], desc[UR4][R2.64]",
        "HGMMA.64x128x16.F32.BF16 R24, gdesc[UR4]",  # 3, the first loop begins
        "LDG.E.128 R4, desc[UR4][R2.64]",
        "@P1 BRA 0x30",
        "SHFL.IDX R1, R2, R3, 0x1f",
        "@!UP0 UMOV UR4, 0x1",
        "NOP",
        "HMMA.16816.F32.BF16 R4, R8, R2, R4",  # the second
        "@!PT BRA 0x90",
        "STG.E.128 desc[UR4][R2.64], R4",
        "EXIT",
        "BRA 0xd0",
    )
    code = sys.modules["sass"].read(sass, [12, 5])
    assert [(loop.trips, loop.before, loop.trip, loop.open_loads) for loop in code.loops] == [
        (12, 3, 3, 1),
        (5, 2, 2, 0),
    ]
    assert code.after == 2
    assert code.executed == 3 + 12 * 3 + 2 + 5 * 2 + 2
    with pytest.raises(ValueError, match="1 more loops over products than the 1 expected"):
        sys.modules["sass"].read(sass, [12])


def test_an_unrolled_loop_is_found_by_its_waits(bench: ModuleType) -> None:
    trip = ["DEPBAR.LE SB0, 0x1", "BAR.SYNC 0x0", "HMMA.16816.F32 R4, R8, R2, R4", "LDGSTS.E [R1], [R2]"]
    sass = disassembled("MOV R1, R2", "LDGSTS.E [R1], [R2]", *trip * 6, "DEPBAR.LE SB0, 0x0", "EXIT")
    code = sys.modules["sass"].read(sass, [6])
    assert (code.loops[0].before, code.loops[0].trip, code.after) == (2, 4, 2)
    with pytest.raises(ValueError, match="neither a branch backwards nor 8 waits"):
        sys.modules["sass"].read(sass, [8])


def test_the_model_has_the_limits_of_each_resource(queueing: ModuleType) -> None:
    """Programs that need one thing alone take the time of that thing."""
    q = queueing
    machine = q.Machine(
        processors=10, dram=100.0, l2=400.0, issue=4.0, tensor=50.0, dram_latency=500.0, l2_latency=200.0
    )

    def time(steps: list[object], programs: int = 400, resident: int = 2) -> float:
        return q.run(machine, programs, resident, steps).end

    streamed = [q.Load("x", 1e6, 1e6), q.Wait("x"), q.Store(1e6, 1e6)]
    assert time(streamed) == pytest.approx(400 * 2e6 / 100, rel=0.01)
    assert time([q.Load("w", 0.0, 1e6), q.Wait("w")]) == pytest.approx(400 * 1e6 / 400, rel=0.01)
    assert time([q.Issue(1e5)]) == pytest.approx(40 * 1e5 / 4, rel=0.01)
    assert time([q.Product(1e6)]) == pytest.approx(40 * 1e6 / 50, rel=0.01)
    # One program with nothing in flight but one small load: the latency each time.
    chain = [step for n in range(20) for step in (q.Load(n, 1.0, 0.0), q.Wait(n))]
    assert time(chain, programs=1) == pytest.approx(20 * 500, rel=0.01)
    # More bytes in flight bring more bandwidth, until memory itself is the limit (Little's law).
    in_flight = [time([q.Load("x", 4e3, 0.0), q.Wait("x")], 4000, resident) for resident in (1, 2, 4)]
    assert in_flight == sorted(in_flight, reverse=True)
    assert in_flight[0] == pytest.approx(400 * (500 + 40 + q.START_NS), rel=0.5)


def test_a_wave_more_takes_longer(queueing: ModuleType) -> None:
    machine = queueing.Machine(10, 100.0, 400.0, 4.0, 50.0, 500.0, 200.0)
    times = [queueing.run(machine, programs, 1, [queueing.Issue(4e3)]).end for programs in (1, 10, 11, 20, 21)]
    assert times == pytest.approx([1e3, 1e3, 2.3e3, 2.3e3, 3.6e3])


def predicted(bench: ModuleType, capsys: pytest.CaptureFixture[str], *options: str) -> list[dict[str, object]]:
    sys.argv = ["predict.py", "--json", *options]
    bench.main()
    return json.loads(capsys.readouterr().out)


def test_rows(bench: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """All kernels of a training step and the merged one's; more work takes longer, and nothing less than its floor."""
    monkeypatch.setattr(sys, "argv", sys.argv)
    shape = ("--grid", "8x16", "--dim", "256", "--bottleneck", "8", "--kernel", "time", "--dtype", "bf16")
    rows = predicted(bench, capsys, "--gpu", "h100", "--batch", "1", "64", "1024", *shape)
    by_kernel: dict[object, list[dict[str, object]]] = {}
    for row in rows:
        by_kernel.setdefault(row["kernel"], []).append(row)
    assert {"forward", "input_grad", "weight_grad", "widened"} <= by_kernel.keys()
    for each in by_kernel.values():
        for row in each:
            assert row["floor_us"] <= row["low_us"] <= row["predicted_us"] <= row["high_us"]
            assert row["limiter"] in bench.LIMITERS
            assert (row["freq"], row["time"], row["dim"], row["bottleneck"], row["dtype"]) == (8, 16, 256, 8, "bf16")
        # One clip has smaller tiles and takes more trips: it may be no faster than 64.
        assert each[1]["predicted_us"] <= each[2]["predicted_us"]
    forward = by_kernel["forward"]
    # Four passes over 1024 x 130 x 256 numbers of two bytes at 3.0 TB/s.
    assert forward[2]["floor_us"] == pytest.approx(4 * 1024 * 130 * 256 * 2 / 3e6, rel=0.01)
    assert forward[0]["limiter"] == "latency", "one clip leaves an H100 idle"


def test_faster_memory_is_never_slower(bench: ModuleType) -> None:
    case = sys.modules["shapes"].Case(64, 8, 16, 256, 8, "time", "bf16", True)
    chips = sys.modules["chips"].GPUS
    h100, h200 = (bench.predict(bench.launches(case, chips[name])[0], chips[name]) for name in ("h100", "h200"))
    assert h200.predicted_us <= h100.predicted_us


def test_device_names(bench: ModuleType) -> None:
    chips = sys.modules["chips"]
    names = {"NVIDIA H100 80GB HBM3": "h100", "NVIDIA H200": "h200", "NVIDIA A100-SXM4-80GB": "a100"}
    names["NVIDIA GeForce RTX 4090"] = "rtx4090"
    for name, key in names.items():
        assert chips.named(name) is chips.GPUS[key]
    assert chips.named("NVIDIA GeForce RTX 3060") is None
