"""The table of docs/backbones.md, against the models that it is of."""

import re
from pathlib import Path
from types import ModuleType

import pytest
import timm

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "bench")
    import backbones

    return backbones


def rows() -> list[list[str]]:
    lines = (ROOT / "docs" / "backbones.md").read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]


@pytest.mark.slow
def test_every_kind_does_what_the_table_says(bench: ModuleType) -> None:
    """But for ONNX, which takes seconds for each."""
    there = {row[0].strip("`"): row[2:6] for row in rows()}
    assert len(there) > 50
    known = set(timm.list_models())
    for name in known & set(there):
        assert bench.cells(bench.try_out(name, onnx=False))[:4] == there[name], name


@pytest.mark.slow
def test_every_model_of_the_pinned_timm_is_in_it(bench: ModuleType) -> None:
    page = (ROOT / "docs" / "backbones.md").read_text(encoding="utf-8")
    if f"timm {timm.__version__};" not in page:
        pytest.skip(f"the table is not of timm {timm.__version__}")
    named = {
        first: [first, *re.findall(r"`(\w+)`", others)] for first, others in ((r[0].strip("`"), r[1]) for r in rows())
    }
    assert named == bench.kinds()


def test_what_is_wrong_is_shown_as_wrong(bench: ModuleType) -> None:
    right = bench.Row(gradients=True)
    assert bench.cells(right) == ["yes", "yes", "yes", "yes", ""]
    for wrong in ({"start": 1e-4}, {"gradients": False}, {"loaded": 1e-4}, {"merged": 1e-4}, {"merged_double": 1e-9}):
        assert bench.cells(bench.Row(**{"gradients": True} | wrong)).count("**wrong**") == 1
    assert bench.cells(bench.Row(gradients=True, onnx=1e-3))[4] == "**wrong**"
    assert bench.cells(bench.Row(refused="block 0 is a Foo; adapters stand")) == ["no: Foo", "", "", "", ""]
