"""A method of one's own: the class of docs/extending.md, trained from a recipe and loaded again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from fastloaa.backbones import backbone_of
from fastloaa.methods import OptionError, build_method
from fastloaa.training import Recipe, load_run, train
from helpers import extending
from helpers.small import small_ast
from helpers.tone_set import small_recipe, write_tones


@pytest.fixture(autouse=True)
def example() -> Iterator[dict[str, Any]]:
    with extending.example("A method") as names:
        yield names


def test_what_it_inserts_trains() -> None:
    plain, x = small_ast(), torch.randn(2, 64, 128)
    before = plain(x)
    model = build_method("gain").apply(plain)
    torch.testing.assert_close(model(x), before)
    new = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    gains = {name for name in new if name.endswith("gain")}
    assert len(gains) == len(backbone_of(model).blocks)
    assert {name.split(".")[0] for name in new - gains} == {"head"}
    model(x).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for name, parameter in model.named_parameters() if name in new)


def test_a_recipe_trains_it(example: dict[str, Any], tmp_path: Path) -> None:
    data = write_tones(tmp_path / "tones", clips=5)
    recipe = small_recipe(data, method="gain", method_options={"start": 0.5}, epochs=1)
    train(recipe, tmp_path / "run", console=Console(quiet=True))
    again = load_run(tmp_path / "run")
    gains = [module.gain for module in again.modules() if isinstance(module, example["Gain"])]
    assert gains
    for gain in gains:
        assert not torch.equal(gain, torch.full_like(gain, 0.5))
        assert (gain - 0.5).abs().max() < 0.2


def test_its_options_are_checked() -> None:
    with pytest.raises(OptionError, match="unknown gain option 'begin'; expected start"):
        Recipe(data="sounds", method="gain", method_options={"begin": 1})
    with pytest.raises(OptionError, match="start is a number, got 'low'"):
        Recipe(data="sounds", method="gain", method_options={"start": "low"})
