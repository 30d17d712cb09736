"""The page about peft: what it shows runs, and ends with what it says."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("peft")

from fastloaa import LoAA
from fastloaa.export import merge

PAGE = Path(__file__).parents[2] / "docs" / "peft.md"


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(block, names)
    x = torch.randn(1, 1, 128, 256)
    assert (tmp_path / "esc50" / "adapter_model.safetensors").is_file()
    assert names["again"](x).shape == (1, 50)
    assert not [module for module in names["plain"].modules() if isinstance(module, LoAA)]
    assert torch.equal(names["plain"](x), merge(names["adapted"])(x))
