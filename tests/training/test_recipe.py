"""Recipes in and out of YAML, and the one-line errors of those that do not fit."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastloaa.training import OptionError, Recipe
from fastloaa.training.recipe import merged, parse_assignments, parse_value, read_yaml

odd = st.sampled_from([1, 3, 5])
RECIPES = st.builds(
    Recipe,
    data=st.text("ab/: #'\"-0", min_size=1),
    method_options=st.fixed_dictionaries(
        {"bottleneck": st.integers(1, 99)}, optional={"attn": st.lists(odd, min_size=2, max_size=2)}
    ),
    backbone_options=st.dictionaries(st.text("abc", min_size=1), st.integers() | st.booleans() | st.text()),
    weights=st.none() | st.sampled_from(["timm", "none", "1e-3", "null"]),
    frames=st.none() | st.integers(1, 2000),
    patch=st.integers(1, 32) | st.tuples(st.integers(1, 32), st.integers(1, 32)),
    lr=st.floats(1e-12, 1e3),
    betas=st.tuples(st.floats(0, 0.99), st.floats(0, 0.9999)),
    grad_clip=st.none() | st.floats(1e-3, 1e3),
    noise_and_roll=st.booleans(),
    precision=st.sampled_from(["auto", "fp32", "bf16"]),
    schedule=st.just("steps"),
    schedule_options=st.fixed_dictionaries({"epochs": st.just([3, 7]), "factors": st.just([0.5, 1e-3])}),
    trackers=st.lists(st.sampled_from(["csv", "tensorboard"])),
)


@given(recipe=RECIPES)
@example(recipe=Recipe(data="next\x85line", weights="line\u2028paragraph\u2029"))
@settings(max_examples=300)
def test_yaml_round_trip(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    recipe.save(path)
    assert Recipe.load(path) == recipe


def test_a_file_as_people_write_it(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        """
        data: sounds            # a comment
        method: loaa
        method_options: {attn: [1, 5], ffn: null, bottleneck: 72}
        lr: 1e-3
        weight_decay: 5E-7
        betas: [0.95, 0.999]
        patch: [16, 8]
        epochs: 30
        """
    )
    recipe = Recipe.load(path)
    assert recipe == Recipe(
        data="sounds",
        method_options={"attn": [1, 5], "ffn": None, "bottleneck": 72},
        lr=0.001,
        weight_decay=0.0000005,
        betas=(0.95, 0.999),
        patch=(16, 8),
        epochs=30,
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 1}, "unknown recipe option 'learning_rate'"),
        ({"epoch": 1}, "unknown recipe option 'epoch'; did you mean 'epochs'?"),
        ({"epochs": "ten"}, "epochs is an integer, got 'ten'"),
        ({"epochs": 0}, "epochs is at least 1, got 0"),
        ({"lr": 0}, "lr is above 0, got 0.0"),
        ({"lr": float("nan")}, "lr is above 0, got nan"),
        ({"weight_decay": float("nan")}, "weight_decay is at least 0, got nan"),
        ({"schedule_options": {"min_lr": 1}}, "min_lr is at most lr=0.0005, got 1"),
        ({"warmup_lr": 1e-3}, "warmup_lr is at most lr=0.0005, got 0.001"),
        ({"schedule": "step"}, "schedule is 'constant', 'cosine', 'exponential' or 'steps', got 'step'"),
        ({"schedule_options": {"factor": 0.9}}, "unknown cosine option 'factor'; expected min_lr"),
        ({"accumulate": 49}, "accumulate is at most batch_size=48, got 49"),
        ({"ema": 1.0}, "ema is between 0 and 1, got 1.0"),
        ({"layer_decay": 0.0}, "layer_decay is between 0 and 1, got 0.0"),
        ({"ema": 0.9, "average_epochs": 2}, "ema and average_epochs both say which weights are averaged"),
        ({"average_epochs": 26}, "average_epochs is at most epochs=25, got 26"),
        ({"metric": "map"}, "metric is 'accuracy' or 'mAP' or null, got 'map'"),
        ({"trackers": ["wandb"]}, "trackers is a list, each 'tensorboard' or 'csv', got ['wandb']"),
        ({"betas": [0.9, 1.0]}, "betas are two numbers in [0, 1), got [0.9, 1.0]"),
        ({"betas": 0.9}, "betas is [a number, a number], got 0.9"),
        ({"grad_clip": 0}, "grad_clip is above 0, got 0.0"),
        ({"validation": 1}, "validation is a fraction in [0, 1), got 1.0"),
        ({"mixup": 1.5}, "mixup is a probability in [0, 1], got 1.5"),
        ({"mean": -6.0}, "mean and std go together"),
        ({"mean": -6.0, "std": 0}, "std is above 0, got 0.0"),
        ({"loss": "mse"}, "loss is 'cross_entropy' or 'bce', got 'mse'"),
        ({"loss": "bce", "label_smoothing": 0.1}, 'label_smoothing goes with loss "cross_entropy"'),
        ({"precision": 16}, "precision is 'auto', 'fp32', 'bf16' or 'fp16', got 16"),
        ({"seed": -1}, "seed is at least 0, got -1"),
        ({"method": "magic"}, "unknown method 'magic'"),
        ({"method_options": {"rank": 4}}, "unknown loaa option 'rank'"),
    ],
)
def test_refusals(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        Recipe(data="x").replace(**changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "unknown recipe option 'epoch'; did you mean 'epochs'?"),
        ("epochs: 3", "recipe: data is missing; it has no default"),
        ("- a\n- b", "holds list, expected lines of `name: value`"),
        ("data: [", "not YAML"),
        ("data: !!python/object/apply:os.getcwd []", "not YAML"),  # safe loading runs no code
    ],
)
def test_files_that_are_no_recipes(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(OptionError) as caught:
        Recipe.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no such file; expected a recipe in YAML"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "empty.yaml").touch()
    assert read_yaml(tmp_path / "empty.yaml") == {}


def test_override() -> None:
    recipe = Recipe(data="x", backbone_options={"depth": 4})
    changed = recipe.override(
        [
            "lr=1e-2",
            "backbone_options.embed_dim=48",
            "method_options.attn=none",
            "frames=128",
            "data=a b",
            "validation=",
        ]
    )
    assert changed == recipe.replace(
        lr=0.01, backbone_options={"depth": 4, "embed_dim": 48}, method_options={"attn": None}, frames=128, data="a b"
    )
    assert recipe == Recipe(data="x", backbone_options={"depth": 4})


@pytest.mark.parametrize("text", ["lr", "=3", "lr=[1"])
def test_overrides_that_are_none(text: str) -> None:
    with pytest.raises(OptionError):
        Recipe(data="x").override([text])


def test_values_and_merging() -> None:
    values = ["1e-3", "-2.5E+2", "3", "true", "None", "null", "time", "[1, 3]", "1e", "e3"]
    assert [parse_value(text) for text in values] == [0.001, -250.0, 3, True, None, None, "time", [1, 3], "1e", "e3"]
    assert parse_assignments(["a.b=1", "a.c=2", "a.b=3", "d=x=y"]) == {"a": {"b": 3, "c": 2}, "d": "x=y"}
    assert merged({"a": {"b": 1}, "c": {"d": 1}}, {"a": {"e": 2}, "c": 5}) == {"a": {"b": 1, "e": 2}, "c": 5}


def test_recipes_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Recipe(data="x").lr = 1.0  # type: ignore[misc]
