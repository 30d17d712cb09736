"""Adapters of `adapt` and of peft become each other, and merge to the same."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("peft")
pytest.importorskip("transformers")

from peft import LoraConfig, get_peft_model

from fastloaa import AST, LoAA, adapt, concat, load_adapter, save_adapter, trainable_parameters
from fastloaa.export import MergeError, merge, merged_from
from fastloaa.peft import LoAAConfig, from_peft, to_peft
from helpers.peft_models import FAMILIES, family, logits, woken

OPTIONS: dict[str, Any] = {"attn": (3, 3), "ffn": "freq", "bottleneck": 6, "scale": 0.5, "activation": "silu"}


@pytest.fixture(params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def starts(model: torch.nn.Module) -> list[str | None]:
    return [module.initialisation for module in model.modules() if isinstance(module, LoAA)]


def test_there_and_back(name: str, tmp_path: Path) -> None:
    model, x = family(name)
    plain = copy.deepcopy(model)
    adapted = woken(adapt(model, **OPTIONS, bias=True)).eval()
    state, expected = copy.deepcopy(adapted.state_dict()), logits(adapted, x)
    there = to_peft(adapted, "birds")
    assert torch.equal(logits(there, x), expected)
    assert there.active_adapters == ["birds"]
    assert there.get_nb_trainable_parameters()[0] == trainable_parameters(adapted)
    back = from_peft(there)
    assert {key: tensor.tolist() for key, tensor in back.state_dict().items()} == {
        key: tensor.tolist() for key, tensor in state.items()
    }
    assert torch.equal(logits(back, x), expected)
    assert starts(back) == starts(adapted)
    assert starts(back)[0]
    assert trainable_parameters(back) == trainable_parameters(adapted)
    save_adapter(back, tmp_path / "birds.safetensors")  # and fastloaa's own files know it
    assert torch.equal(logits(load_adapter(plain, tmp_path / "birds.safetensors").eval(), x), expected)
    frozen = to_peft(copy.deepcopy(adapted).requires_grad_(False))  # whether it trains is peft's to say
    assert frozen.get_nb_trainable_parameters() == there.get_nb_trainable_parameters()
    woken(back), woken(there)
    assert torch.equal(logits(adapted, x), expected)  # nothing is shared


def test_one_of_several() -> None:
    model, x = family("timm ViT")
    peft_model = woken(get_peft_model(model, LoAAConfig(**OPTIONS))).eval()
    default = logits(peft_model, x)
    peft_model.add_adapter("birds", LoAAConfig(attn=None, ffn="linear", bottleneck=4))
    peft_model.set_adapter("birds")
    birds = logits(woken(peft_model, seed=8), x)
    assert torch.equal(logits(from_peft(peft_model), x), birds)
    assert torch.equal(logits(from_peft(peft_model, "default"), x), default)
    torch.testing.assert_close(logits(peft_model.merge_and_unload(adapter_names=["default"]), x), default)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "transformers"])
def test_merged_as_merge_does(name: str) -> None:
    model, x = family(name)
    peft_model = woken(get_peft_model(model, LoAAConfig(**OPTIONS))).eval()
    merged = peft_model.merge_and_unload(safe_merge=True)
    torch.testing.assert_close(logits(merged, x), logits(peft_model, x))
    assert torch.equal(logits(merged, x), logits(merge(from_peft(peft_model)), x))
    assert not [module for module in merged.modules() if isinstance(module, LoAA)]
    assert (merged_from(merged) or {})["adapt"]["bottleneck"] == 6


def test_transformers_merge_as_fastloaas_ast() -> None:
    model, x = family("transformers")
    peft_model = woken(get_peft_model(model, LoAAConfig(**OPTIONS))).eval()
    with pytest.raises(TypeError, match=r"AST\.from_transformers"):
        peft_model.merge_and_unload()
    merged = merge(AST.from_transformers(from_peft(peft_model)))  # type: ignore[arg-type]
    torch.testing.assert_close(merged(x), logits(peft_model, x))


def test_two_active_adapters_are_summed_and_merged() -> None:
    model, x = family("AST")
    peft_model = woken(get_peft_model(model, LoAAConfig(bottleneck=6, modules_to_save=[], scale=0.5))).eval()
    one = logits(peft_model, x)
    peft_model.add_adapter("birds", LoAAConfig(attn="freq", ffn=None, bottleneck=4, modules_to_save=[]))
    peft_model.set_adapter("birds")
    woken(peft_model, seed=8)
    peft_model.base_model.set_adapter(["default", "birds"])
    both = logits(peft_model, x)
    assert (both - one).abs().max() > 0.1
    merged = peft_model.merge_and_unload()
    torch.testing.assert_close(logits(merged, x), both)
    described = (merged_from(merged) or {})["adapt"]
    assert (described["attn"], described["ffn"], described["bottleneck"]) == ([3, 3], [3, 1], 10)
    with pytest.raises(ValueError, match="2 adapters are active"):
        from_peft(peft_model)


def test_what_is_not_converted() -> None:
    model, _ = family("timm ViT")
    plain = copy.deepcopy(model)
    with pytest.raises(ValueError, match="has no adapters to give to peft"):
        to_peft(model)
    peft_model = get_peft_model(model, LoAAConfig())
    with pytest.raises(ValueError, match="no adapter owls; the model has default"):
        from_peft(peft_model, "owls")
    with pytest.raises(TypeError, match="expected a PeftModel that get_peft_model"):
        from_peft(peft_model.get_base_model())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected a PeftModel that get_peft_model"):
        from_peft(get_peft_model(copy.deepcopy(plain), LoraConfig(target_modules=["qkv"])))
    adapted: Any = adapt(plain, "time", None, 6)
    adapted.blocks[1].loaa_attn = concat([adapted.blocks[1].loaa_attn, adapted.blocks[1].loaa_attn])
    with pytest.raises(ValueError, match="block 1 has other adapters than block 0"):
        to_peft(adapted)


def test_adapters_that_are_not_finite_are_not_merged_when_asked_to_look() -> None:
    model, _ = family("timm ViT")
    peft_model = get_peft_model(model, LoAAConfig(**OPTIONS))
    adapter = next(module for module in peft_model.modules() if isinstance(module, LoAA))
    with torch.no_grad():
        adapter.down.weight[0, 0] = float("nan")
    with pytest.raises(MergeError, match="default hold numbers that are not finite"):
        peft_model.merge_and_unload(safe_merge=True)
