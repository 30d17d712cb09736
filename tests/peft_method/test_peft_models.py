"""LoAA as a method of peft, on every family of models: what peft tests of its own methods, against `adapt`."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("peft")
pytest.importorskip("transformers")

from peft import PeftModel, get_peft_model, inject_adapter_in_model
from safetensors.torch import load_file

from fastloaa import LoAA, TokenGrid, adapt
from fastloaa.backbones import FAMILIES as FAMILIES_OF_MODELS
from fastloaa.backbones import backbone_of, register
from fastloaa.backbones.timm_vit import TimmViT
from fastloaa.errors import ArgumentError
from fastloaa.peft import LoAAConfig
from helpers.peft_models import FAMILIES, family, logits, woken
from helpers.small import SMALL, small_vit

pytestmark = [
    pytest.mark.filterwarnings("ignore:Adapter .* was active which is now deleted"),
    pytest.mark.filterwarnings("error:Found missing adapter keys"),
]


def config(**options: Any) -> LoAAConfig:
    return LoAAConfig(**({"attn": "time", "ffn": "freq", "bottleneck": 6} | options))


@pytest.fixture(params=FAMILIES)
def plain(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    return family(request.param)


def test_the_sum_is_that_of_adapt(plain: tuple[nn.Module, Tensor]) -> None:
    model, x = plain
    base = logits(model, x)
    expected = adapt(copy.deepcopy(model), "time", "freq", 6, bias=True, scale=0.7, activation="relu")
    adapted = get_peft_model(model, config(loaa_bias=True, scale=0.7, activation="relu")).eval()
    torch.testing.assert_close(logits(adapted, x), base, rtol=0, atol=0)
    trained = [p for p in adapted.parameters() if p.requires_grad]
    like = [p for p in expected.parameters() if p.requires_grad]
    assert [p.shape for p in trained] == [p.shape for p in like]  # adapters, then the head
    with torch.no_grad():
        for one, other in zip(woken(expected).parameters(), adapted.get_base_model().parameters(), strict=False):
            assert one.dtype == other.dtype
        for one, other in zip(like, trained, strict=True):
            other.copy_(one)
    torch.testing.assert_close(logits(adapted, x), logits(expected, x))
    assert (logits(adapted, x) - base).abs().max() > 0.1


def test_adapters_and_head_train_and_the_rest_stays(plain: tuple[nn.Module, Tensor]) -> None:
    model, x = plain
    adapted = woken(get_peft_model(model, config())).train()
    before = {name: p.detach().clone() for name, p in adapted.named_parameters()}
    logits(adapted, x).square().sum().backward()
    trained = [(name, p) for name, p in adapted.named_parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for _, p in trained)
    torch.optim.SGD([p for _, p in trained], 0.1).step()
    changed = {name for name, p in adapted.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name, _ in trained}
    assert sum(isinstance(module, LoAA) for module in adapted.modules()) == 4


@pytest.mark.parametrize("empty", [False, True], ids=["", "low_cpu_mem_usage"])
def test_saved_and_loaded(plain: tuple[nn.Module, Tensor], tmp_path: Path, empty: bool) -> None:
    model, x = plain
    fresh = copy.deepcopy(model)
    adapted = woken(get_peft_model(model, config(ffn=(3, 3), scale=0.5))).eval()
    adapted.save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json", ".md"}
    assert not [name for name in load_file(tmp_path / "adapter_model.safetensors") if "default" in name]
    loaded = PeftModel.from_pretrained(fresh, tmp_path, "birds", low_cpu_mem_usage=empty)
    assert torch.equal(logits(loaded, x), logits(adapted, x))
    assert not [name for name, p in loaded.named_parameters() if p.requires_grad or p.is_meta]
    assert (loaded.active_peft_config.scale, loaded.active_peft_config.ffn) == (0.5, (3, 3))


def test_several_adapters(plain: tuple[nn.Module, Tensor], tmp_path: Path) -> None:
    model, x = plain
    base, keys = logits(model, x), set(model.state_dict())
    fresh = copy.deepcopy(model)
    adapted = woken(get_peft_model(model, config())).eval()
    default = logits(adapted, x)
    trained = {name for name, p in adapted.named_parameters() if p.requires_grad}
    adapted.add_adapter("birds", config(attn=None, ffn="linear", bottleneck=4))
    assert torch.equal(logits(adapted, x), default)
    assert {name for name, p in adapted.named_parameters() if p.requires_grad} == trained
    adapted.set_adapter("birds")
    assert torch.equal(logits(adapted, x), base)  # it begins as nothing, its head as the model's
    birds = logits(woken(adapted, seed=8), x)
    assert (birds - default).abs().max() > 0.1
    assert not {name for name, p in adapted.named_parameters() if p.requires_grad} & trained
    with adapted.disable_adapter():
        assert torch.equal(logits(adapted, x), base)
    assert torch.equal(logits(adapted, x), birds)
    adapted.set_adapter("default")
    assert torch.equal(logits(adapted, x), default)

    adapted.save_pretrained(tmp_path)
    other = PeftModel.from_pretrained(fresh, tmp_path / "birds", "birds")
    assert torch.equal(logits(other, x), birds)
    other.load_adapter(tmp_path, "default")
    other.set_adapter("default")
    assert torch.equal(logits(other, x), default)

    adapted.delete_adapter("default")
    assert adapted.active_adapters == ["birds"]
    assert torch.equal(logits(adapted, x), birds)
    assert not [name for name in adapted.state_dict() if "default" in name]
    seen: list[int] = []
    backbone_of(adapted.get_base_model()).blocks[0].register_forward_hook(lambda *_: seen.append(1))
    unloaded = adapted.unload()
    logits(unloaded, x)
    assert seen == [1]
    assert set(unloaded.state_dict()) == keys
    assert not [m for m in unloaded.modules() if isinstance(m, LoAA)]
    get_peft_model(unloaded, config())  # as it was


def test_unloaded_a_model_takes_the_inputs_that_it_took() -> None:
    """Adapters keep a model to one grid; without them timm's takes any size again, transformers' as many tokens."""
    vit = small_vit(dynamic_img_size=True)
    eva = small_vit("vit_small_patch16_dinov3", dynamic_img_size=True, **SMALL)
    ast, x = family("transformers")
    image = torch.randn(1, 1, 96, 64)
    for model, other in ((vit, image), (eva, image), (ast, x.mT)):
        before = logits(model, other)
        adapted = get_peft_model(model, config())
        with pytest.raises((AssertionError, ArgumentError)):
            logits(adapted, other)
        assert torch.equal(logits(adapted.unload(), other), before)


def test_the_last_one_deleted_leaves_the_model(plain: tuple[nn.Module, Tensor]) -> None:
    model, x = plain
    base = logits(model, x)
    adapted = woken(get_peft_model(model, config())).eval()
    adapted.delete_adapter("default")
    assert torch.equal(logits(adapted.base_model, x), base)  # peft's wrapper itself always wants one
    assert not [name for name in adapted.state_dict() if "default" in name]


def test_a_copy_is_a_model_of_its_own(plain: tuple[nn.Module, Tensor]) -> None:
    model, x = plain
    adapted = woken(get_peft_model(model, config())).eval()
    before = logits(adapted, x)
    copied = copy.deepcopy(adapted)
    assert torch.equal(logits(copied, x), before)
    woken(copied)
    copied.add_adapter("birds", config())
    assert torch.equal(logits(adapted, x), before)
    assert (logits(copied, x) - before).abs().max() > 0.1
    assert list(adapted.peft_config) == ["default"]


def test_the_grid_is_the_models() -> None:
    model, _ = family("timm ViT")
    adapted = woken(get_peft_model(model, config())).eval()
    adapted.get_base_model().set_input_size((128, 64))
    x = torch.randn(2, 1, 128, 64, dtype=torch.float64)
    expected = adapt(copy.deepcopy(adapted).unload(), "time", "freq", 6).eval()
    expected.load_state_dict(
        {
            name.replace(".loaa_adapters.default", ""): tensor
            for name, tensor in adapted.get_base_model().state_dict().items()
            if "loaa" in name
        },
        strict=False,
    )
    torch.testing.assert_close(logits(adapted, x), logits(expected, x))
    grids = {(m.freq_bins, m.prefix_tokens) for m in adapted.modules() if isinstance(m, LoAA)}
    assert grids == {(TokenGrid(8, 4, 1).freq_bins, 1)}


def test_what_trains_besides_can_be_chosen(tmp_path: Path) -> None:
    model, x = family("timm ViT")
    adapted = get_peft_model(model, config(modules_to_save=[]))
    assert {name.split(".")[-2] for name, p in adapted.named_parameters() if p.requires_grad} == {"down", "up"}
    adapted.add_adapter("probe", config(attn=None, ffn=None, modules_to_save=["norm"]))
    adapted.set_adapter("probe")
    assert {name.split(".")[-4] for name, p in adapted.named_parameters() if p.requires_grad} == {"norm"}
    adapted.base_model.set_adapter(["default", "probe"])
    assert torch.isfinite(logits(adapted, x)).all()


def test_injected_without_a_wrapper() -> None:
    model, x = family("AST")
    torch.manual_seed(1)
    expected = woken(get_peft_model(copy.deepcopy(model), config())).eval()
    torch.manual_seed(1)
    injected = woken(inject_adapter_in_model(config(), model)).eval()
    assert type(injected) is type(model)
    assert torch.equal(logits(injected, x), logits(expected, x))


def test_a_family_of_ones_own() -> None:
    @register
    class Listeners(TimmViT):
        kind = "a listener"

        @classmethod
        def matches(cls, model: nn.Module) -> bool:
            return hasattr(model, "listener")

        @property
        def vit(self) -> Any:
            return self.model.listener

    try:
        model, x = family("timm ViT")
        listener = nn.Sequential()
        listener.add_module("listener", model)
        adapted = get_peft_model(listener, config(modules_to_save=["listener.head"])).eval()
        assert torch.equal(logits(adapted, x), logits(model, x))
        assert sum(isinstance(module, LoAA) for module in adapted.modules()) == 4
        assert adapted.targeted_module_names == ["listener.blocks.0", "listener.blocks.1"]
    finally:
        FAMILIES_OF_MODELS.remove(Listeners)
