"""Every Python block of README and docs runs."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

import fastloaa
from fastloaa import AST, LoAA, adapt, average, save_adapter
from fastloaa.export import to_onnx
from helpers import pages
from helpers.extending import registries_as_they_are
from helpers.small import SMALL, small_ast, wake_adapters
from helpers.tones import write_tone

ELSEWHERE = {"docs/peft.md"}  # tests/peft_method/test_peft_page.py runs it
RUN = [page for page in pages.PAGES if pages.has_python(page) and pages.name_of(page) not in ELSEWHERE]


@pytest.fixture(autouse=True)
def _small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm makes the models that the pages name two blocks deep and 48 wide: seconds become milliseconds. Nothing is
    downloaded; pretrained weights are random ones, the same each time."""
    create = timm.create_model

    def small(name: str, *, pretrained: bool = False, **options: object) -> nn.Module:
        with torch.random.fork_rng(devices=[]) if pretrained else nullcontext():
            if pretrained:
                torch.manual_seed(0)
            return create(name, **(options | SMALL))

    monkeypatch.setattr(timm, "create_model", small)


def block_of_the_reader() -> dict[str, Any]:
    """A timm block at the place where README's adapter stands: 768 wide, cls and dist before 8 x 4 patches."""
    options = {"kernel_size": (1, 3), "padding": (0, 1), "bias": False}
    adapter = SimpleNamespace(down=nn.Conv2d(768, 36, **options), up=nn.Conv2d(36, 768, **options))
    x, attention_out = torch.randn(2, 2, 34, 768)
    normed = F.layer_norm(x, (768,))
    centre_tap = [convolution.weight[:, :, 0, 1].T for convolution in (adapter.down, adapter.up)]
    return {
        "F": F,
        "fastloaa": fastloaa,
        "torch": torch,
        "self": adapter,
        "x": x,
        "normed": normed,
        "attention_out": attention_out,
        "prefix_branch": F.gelu(normed[:, :2] @ centre_tap[0]) @ centre_tap[1],
        "waveform": torch.randn(2, 16000),
    }


def exported_files() -> dict[str, Any]:
    """What `fastloaa export` leaves."""
    to_onnx(adapt(small_ast(2, labels=["yes", "no"], backbone_options=SMALL | {"depth": 1})), "model.onnx")
    Path("mine.onnx").write_bytes(Path("model.onnx").read_bytes())
    write_tone(Path("meeting.wav"))
    return {}


def adapted_models() -> dict[str, Any]:
    """An adapted model, one task's file for each of two, and layers to combine."""
    backbone = small_ast()
    start = backbone.state_dict()
    names: dict[str, Any] = {}
    for name in ("birds", "speech"):
        model = small_ast()
        model.load_state_dict(start)
        wake_adapters(adapt(model, bottleneck=4))
        save_adapter(model, f"{name}.safetensors")
        names[name] = model.backbone.blocks[0].loaa_ffn
    names |= {"block": model.backbone.blocks[0], "run_a": names["birds"], "run_b": names["birds"], "backbone": backbone}
    return names | {"model": model, "log_mel": torch.randn(4, 64, 128), "average": average}


def spoken_digits() -> dict[str, Any]:
    for name in ("0_theo_0", "1_theo_0", "0_lucas_0", "1_lucas_0"):
        write_tone(Path("recordings", f"{name}.wav"))
    return {}


SET_UP: dict[str, Callable[[], dict[str, Any]]] = {
    "README.md": block_of_the_reader,
    "docs/backbones.md": lambda: {"AST": AST},
    "docs/datasets.md": spoken_digits,
    "docs/deployment.md": exported_files,
    "docs/merging.md": adapted_models,
}


@pytest.mark.parametrize("page", RUN, ids=pages.name_of)
def test_the_code_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"} | SET_UP.get(pages.name_of(page), dict)()
    with registries_as_they_are():
        pages.run(page, names)


def test_what_replaces_your_code_computes_the_same() -> None:
    """README's two blocks, side by side, with one state dict."""
    names = block_of_the_reader()
    x, convolutions = names["x"], names["self"]
    yours, ours = pages.examples(pages.README, names, "Your code / replace it with")[:2]
    yours.evaluate()
    by_hand, names["x"] = names["x"], x
    ours.evaluate()
    layer = convolutions.loaa
    assert isinstance(layer, LoAA)
    layer.load_state_dict({f"{name}.weight": getattr(convolutions, name).weight for name in ("down", "up")})
    torch.testing.assert_close(layer(names["normed"], names["attention_out"], x), by_hand)
