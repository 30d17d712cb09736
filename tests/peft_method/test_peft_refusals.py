"""What `fastloaa.peft` refuses, and how it says so."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("peft")
pytest.importorskip("transformers")

from peft import PeftConfig, get_peft_model

from fastloaa import adapt, save_adapter
from fastloaa.peft import LoAAConfig
from helpers.peft_models import family


@pytest.mark.parametrize("installed", [None, "0.20.3"])
def test_without_peft_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, installed: str | None) -> None:
    if installed is None:
        monkeypatch.setitem(sys.modules, "peft", None)
    else:
        monkeypatch.setattr("fastloaa.peft.available.version", lambda name: installed)
    monkeypatch.delitem(sys.modules, "fastloaa.peft")
    with pytest.raises(ImportError, match=r"peft .*; pip install (--upgrade )?'fastloaa\[peft\]'$") as caught:
        importlib.import_module("fastloaa.peft")
    assert "\n" not in str(caught.value)


def test_a_configuration_says_what_is_wrong_at_once() -> None:
    wrong: list[dict[str, Any]] = [{"attn": "times"}, {"ffn": (2, 1)}, {"bottleneck": 0}, {"scale": "big"}]
    for options in [*wrong, {"dropout": 1.5}, {"activation": "tanh"}, {"backend": "cuda"}]:
        with pytest.raises(ValueError, match=rf"{'kernel' if set(options) & {'attn', 'ffn'} else next(iter(options))}"):
            LoAAConfig(**options)


def test_a_configuration_goes_through_json(tmp_path: Path) -> None:
    config = LoAAConfig(attn=(3, 5), ffn=None, bottleneck=8, loaa_bias=True, backend="reference")
    config.save_pretrained(tmp_path)
    assert "backend" not in json.loads((tmp_path / "adapter_config.json").read_text())
    loaded = PeftConfig.from_pretrained(tmp_path)
    assert type(loaded) is LoAAConfig
    assert (loaded.attn, loaded.ffn, loaded.bottleneck, loaded.loaa_bias) == ((3, 5), None, 8, True)
    assert loaded.adapt == config.adapt  # the backend, how they run, does not count


def test_one_way_of_adapting_at_a_time(tmp_path: Path) -> None:
    model, _ = family("timm ViT")
    adapted = adapt(model)
    with pytest.raises(ValueError, match=r"fastloaa\.peft\.to_peft"):
        get_peft_model(adapted, LoAAConfig())
    for name in ("timm ViT", "transformers"):
        base = get_peft_model(family(name)[0], LoAAConfig()).get_base_model()
        with pytest.raises(ValueError, match="has been adapted already"):
            adapt(base)
        with pytest.raises(ValueError, match="no adapters to save"):
            save_adapter(base, tmp_path / "no.safetensors")


def test_adapters_of_one_model_read_one_input() -> None:
    adapted = get_peft_model(family("timm ViT")[0], LoAAConfig(normed_input=False))
    with pytest.raises(ValueError, match="normed_input=True, 'default' has False"):
        adapted.add_adapter("birds", LoAAConfig())
    assert list(adapted.peft_config) == ["default"]


def test_a_model_that_takes_no_adapters_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    with pytest.raises(TypeError, match="adapters go into"):
        get_peft_model(model, LoAAConfig())
    assert [type(module) for module in model] == [nn.Linear]


def test_adapters_clip_by_clip_are_not_ignored() -> None:
    model, x = family("timm ViT")
    adapted = get_peft_model(model, LoAAConfig()).eval()
    with pytest.raises(NotImplementedError, match=r"fastloaa\.name_adapters"):
        adapted(x, adapter_names=["default", "__base__"])
    adapted(x)


def test_nothing_is_merged_in_place() -> None:
    adapted = get_peft_model(family("timm ViT")[0], LoAAConfig())
    before = {name: tensor.clone() for name, tensor in adapted.state_dict().items()}
    with pytest.raises(NotImplementedError, match="merge_and_unload"):
        adapted.merge_adapter()
    assert all(torch.equal(tensor, before[name]) for name, tensor in adapted.state_dict().items())
