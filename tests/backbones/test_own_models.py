"""A model of one's own: the example of docs/extending.md, run, and what is said of models that are none."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastloaa import AST, TokenGrid, adapt, load_adapter, save_adapter
from fastloaa.backbones import FAMILIES, backbone_of, find_backbone, is_audio_transformer, register
from fastloaa.export import MergeError, load_merged, merge, save_merged
from helpers import extending
from helpers.small import small_ast, wake_adapters


@pytest.fixture
def example() -> Iterator[dict[str, Any]]:
    """What the page defines."""
    with extending.example("A family of models") as names:
        yield names


def test_it_takes_adapters_and_loses_them_again(example: dict[str, Any], tmp_path: Path) -> None:
    model, plain = example["model"].double(), example["Birds"]().double().eval()
    x = torch.randn(2, 1, 128, 256).double()
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if "loaa_" not in name})
    torch.testing.assert_close(model(x), plain(x))
    wake_adapters(model)
    assert (model(x) - plain(x)).abs().max() > 1e-2
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all("loaa_" in name or name.startswith("classifier") for name in trainable)
    assert sum("loaa_" in name for name in trainable) == 3 * 2 * 2
    save_adapter(model, tmp_path / "adapters")
    torch.testing.assert_close(load_adapter(copy.deepcopy(plain), tmp_path / "adapters")(x), model(x))
    merged = merge(model)
    assert type(merged.layers[0]) is example["Layer"]
    assert (merged(x) - model(x)).abs().max() < 1e-12
    save_merged(merged, tmp_path / "merged")
    assert torch.equal(load_merged(tmp_path / "merged", plain)(x), merged(x))


def test_its_own_ffn_merges_once_its_linears_are_known(example: dict[str, Any]) -> None:
    known = example["Squared"]
    same = type("Same", (known,), {})
    other = type("Other", (known,), {"forward": lambda self, x: 2 * known.forward(self, x)})
    wrapped = type(
        "Wrapped", (nn.Sequential,), {"__init__": lambda self, dim: nn.Sequential.__init__(self, known(dim))}
    )
    assert merge_error(example, known) is merge_error(example, same) is None
    for ffn in (other, wrapped):
        assert f"block 0 has a {ffn.__name__}; adapters merge into FFNs whose" in str(merge_error(example, ffn))


def merge_error(example: dict[str, Any], ffn: type[nn.Module]) -> MergeError | None:
    """Merge a model with such FFNs, compare, return what stood in the way."""
    model, x = example["Birds"]().double().eval(), torch.randn(2, 1, 128, 256).double()
    for layer in model.layers:
        layer.ffn = ffn(64).double()
    wake_adapters(adapt(model))
    try:
        assert (merge(model)(x) - model(x)).abs().max() < 1e-12
    except MergeError as error:
        return error
    return None


def test_a_backbone_object_makes_its_family_known(example: dict[str, Any]) -> None:
    family, model = example["BirdsBackbone"], example["Birds"]()
    FAMILIES.remove(family)
    with pytest.raises(TypeError, match=r"or transformers' .*, got Birds; .* write a fastloaa\.backbones\.Backbone"):
        adapt(model)
    assert adapt(family(model)) is model
    assert type(find_backbone(example["Birds"]())) is family
    assert backbone_of(model).grid == TokenGrid(8, 16, 0)


def test_its_family_is_asked_before_others() -> None:
    before = FAMILIES[:]

    class Narrow(type(backbone_of(small_ast()))):  # type: ignore[misc]
        kind = "a narrow AST"

    try:
        register(Narrow)
        assert type(find_backbone(small_ast())) is Narrow
        assert register(Narrow) is Narrow
        assert FAMILIES.count(Narrow) == 1
    finally:
        FAMILIES[:] = before
    with pytest.raises(TypeError, match=r"a subclass of fastloaa\.backbones\.Backbone"):
        register(nn.Linear)  # type: ignore[arg-type]


class Wrapped(nn.Module):
    """Answers as AST does, without being one."""

    def __init__(self, ast: AST) -> None:
        super().__init__()
        self.backbone, self.head, self.front = ast.backbone, ast.head, ast

    @property
    def grid(self) -> TokenGrid:
        return self.front.grid

    def config(self) -> dict[str, Any]:
        return self.front.config()

    def forward(self, log_mel: Tensor) -> Tensor:
        return self.front(log_mel)


def test_a_model_with_a_backbone_and_a_head_is_known_by_them() -> None:
    """On every Python: a protocol checked at run time does not see submodules from 3.12 on."""
    model, log_mel = Wrapped(small_ast()), torch.randn(1, 64, 128)
    assert is_audio_transformer(model)
    adapt(model, bottleneck=4)
    wake_adapters(model)
    assert (merge(model)(log_mel) - model(log_mel)).abs().max() < 1e-5
    for name in ("backbone", "head"):
        lacking = Wrapped(small_ast())
        delattr(lacking, name)
        assert not is_audio_transformer(lacking)
    assert not is_audio_transformer(small_ast().backbone)
