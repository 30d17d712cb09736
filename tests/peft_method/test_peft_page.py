"""The page about peft: what it shows runs, and ends with what it says."""

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("peft")

from fastloaa import LoAA
from fastloaa.export import merge
from helpers import pages


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    pages.run(pages.ROOT / "docs" / "peft.md", names)
    x = torch.randn(1, 1, 128, 256)
    assert (tmp_path / "esc50" / "adapter_model.safetensors").is_file()
    assert names["again"](x).shape == (1, 50)
    assert not [module for module in names["plain"].modules() if isinstance(module, LoAA)]
    assert torch.equal(names["plain"](x), merge(names["adapted"])(x))
