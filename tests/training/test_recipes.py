"""The package's recipes: complete, equal to the paper's tables, of the paper's sizes, and every one of them runs."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from fastloaa import AST, trainable_parameters
from fastloaa.audio import SpecAugment
from fastloaa.cli import app
from fastloaa.data import AudioSplits, Clip
from fastloaa.files import read_safetensors
from fastloaa.training import OptionError, Recipe, loop
from fastloaa.training.build import open_config
from fastloaa.training.metrics import read_metrics
from fastloaa.training.recipes import read_recipe, recipe_names, recipe_text
from helpers.miniatures import MINIATURES

NAMES = recipe_names()
CLASSES = {"epic-sounds": 44, "esc-50": 50, "speech-commands": 35}

# Typed off the paper: EPIC-SOUNDS top-1 and mAP, ESC-50, SPC-2.
TABLE_2 = {
    "AST Full FT": ("52.22", "0.222", "87.9", "97.8"),
    "Linear Probe": ("38.95", "0.136", "65.6", "42.1"),
    "Parallel Adapter 5%": ("53.40", "0.227", "87.0", "96.7"),
    "Attn(T) 2%": ("54.52", "0.234", "85.4", "96.5"),
    "FFN(F) 2%": ("53.73", "0.231", "85.8", "96.3"),
    "Attn(T) FFN(F) 5%": ("54.14", "0.238", "87.1", "96.9"),
    "Attn(T) FFN(F) 10%": ("54.11", "0.240", "88.3", "97.0"),
}
TABLE_3 = {  # top-1 on EPIC-SOUNDS at 5% and 10%
    "Attn(L) FFN(L)": ("53.40", "53.85"),
    "Attn(T) FFN(T)": ("53.55", "54.01"),
    "Attn(F) FFN(F)": ("54.05", "54.35"),
    "Attn(T) FFN(F)": ("54.14", "54.11"),
    "Attn(F) FFN(T)": ("53.90", "54.04"),
}
KERNELS = {"T": "time", "F": "freq", "L": "linear"}


def data_set(name: str) -> str:
    return next(each for each in MINIATURES if name.startswith(each))


def load(name: str) -> Recipe:
    return Recipe.from_dict(read_recipe(name) | {"data": "unused"})


def test_a_recipe_for_every_row_and_data_set_and_no_other() -> None:
    expected = {(each, f"Table 2: {row}") for each in MINIATURES for row in TABLE_2}
    expected |= {("epic-sounds", f"Table 3: {row} {share}") for row in TABLE_3 for share in ("5%", "10%")}
    expected |= {("epic-sounds", f"Table 1: {row} 2.026M") for row in ("ATTN T(1,3)", "FFN F(3,1)")}
    found = [(data_set(name), row) for name in NAMES for row in load(name).paper_row().rows]
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("name", NAMES)
def test_the_figures_are_those_of_its_rows(name: str) -> None:
    paper = load(name).paper_row()
    for row in paper.rows:
        table, title = row.split(": ")
        if table == "Table 3":
            title, share = title.rsplit(" ", 1)
            assert paper.figures["Top-1"] == TABLE_3[title][("5%", "10%").index(share)]
            assert share == paper.share
        elif table == "Table 2":
            top1, mean_precision, esc50, commands = TABLE_2[title]
            assert (
                paper.figures
                == {
                    "epic-sounds": {"Top-1": top1, "mAP": mean_precision},
                    "esc-50": {"mAP": esc50},
                    "speech-commands": {"mAP": commands},
                }[data_set(name)]
            )


@pytest.mark.parametrize("name", NAMES)
def test_the_method_is_that_of_its_rows(name: str) -> None:
    """`Attn(T) FFN(F) 5%` is LoAA with those kernels; the parallel adapter is the one with linear ones."""
    recipe = load(name)
    for row in recipe.paper_row().rows:
        kernels = {site.lower(): KERNELS[letter] for site, letter in re.findall(r"(Attn|FFN)\((\w)\)", row)}
        if set(kernels.values()) == {"linear"} or "Parallel" in row:
            assert recipe.method == "parallel"
        elif kernels:
            assert recipe.method == "loaa"
            given = {site: recipe.method_options[site] for site in ("attn", "ffn")}
            assert given == {"attn": None, "ffn": None} | kernels
    assert recipe.stride == (10 if recipe.method == "full" else 16)  # patches overlap in full fine-tuning alone


# From the public code of AST and of EPIC-SOUNDS' baselines, and section 3.2 of the paper.
AST_TRAINING = {"optimiser": "adam", "betas": [0.95, 0.999], "weight_decay": 5e-7, "warmup_epochs": 0.0} | {
    "schedule": "exponential",
    "schedule_options": {"factor": 0.85, "from_epoch": 5},
}
SETTINGS = {
    "esc-50": AST_TRAINING
    | {"epochs": 25, "batch_size": 48, "frames": 512, "mean": -6.6268077, "std": 5.358466, "sample_rate": 16000}
    | {"loss": "cross_entropy", "mixup": 0.0, "freq_mask": 24, "time_mask": 96, "noise_and_roll": False, "masks": 1},
    "speech-commands": AST_TRAINING
    | {"epochs": 30, "batch_size": 128, "frames": 128, "mean": -6.845978, "std": 5.5654526, "sample_rate": 16000}
    | {"loss": "bce", "mixup": 0.6, "freq_mask": 48, "time_mask": 48, "noise_and_roll": True, "masks": 1},
    "epic-sounds": {"optimiser": "adamw", "weight_decay": 1e-4, "warmup_epochs": 2.0, "warmup_lr": 1e-6}
    | {"schedule": "steps", "schedule_options": {"epochs": [10, 20], "factors": [0.05, 0.01]}, "betas": [0.9, 0.999]}
    | {"epochs": 30, "batch_size": 128, "frames": 400, "mean": 0.0, "std": 0.5, "sample_rate": 24000}
    | {"loss": "cross_entropy", "mixup": 0.0, "freq_mask": 27, "time_mask": 25, "masks": 2, "mask_fill": "mean"}
    | {"noise_and_roll": False, "front_end": "epic-sounds", "crop": "random", "views": 5},
}
RATES = {"epic-sounds": 1e-4, "esc-50": 5e-4, "speech-commands": 2.5e-4}


@pytest.mark.parametrize("name", NAMES)
def test_the_settings_are_those_of_its_data_set(name: str) -> None:
    values = load(name).to_dict()
    expected = SETTINGS[data_set(name)]
    assert {field: values[field] for field in expected} == expected
    assert values["lr"] == (1e-4 if name == "esc-50-full" else RATES[data_set(name)])


@pytest.mark.parametrize("name", NAMES)
def test_the_trainable_parameters_at_full_size(name: str) -> None:
    recipe = load(name).replace(weights=None)
    paper = recipe.paper_row()
    assert paper.classes == CLASSES[data_set(name)]
    classes = tuple(map(str, range(paper.classes)))
    splits = AudioSplits("full size", classes, (Clip(Path("a"), (0,)),), (), (Clip(Path("b"), (0,)),))
    with torch.device("meta"):
        model = recipe.build_method().apply(AST.from_config(open_config(recipe, splits)))
    assert trainable_parameters(model) == paper.trainable_parameters
    if paper.printed_parameters:
        assert f"{trainable_parameters(model) / 1e6:.3f}M" == paper.printed_parameters
    if recipe.method == "full":
        assert trainable_parameters(model) == sum(parameter.numel() for parameter in model.parameters())


def train(name: str, data: Path, out: Path, *more: str) -> Result:
    tiny = ("backbone=deit_tiny_distilled_patch16_224", "backbone_options={depth: 1, embed_dim: 24, num_heads: 2}")
    changes = (*tiny, "weights=none", "epochs=1", "batch_size=4", *more)
    arguments = [word for change in changes for word in ("--set", change)]
    command = ["train", "--recipe", name, "--data", str(data), "--out", str(out), *arguments]
    return CliRunner().invoke(app, command)


@pytest.mark.slow
def test_three_steps_at_full_size(tmp_path: Path) -> None:
    """AST-base with the paper's adapters as the recipe has them, but for ImageNet's weights and the size of a batch."""
    name, out = "esc-50-attn-t-ffn-f-5", tmp_path / "run"
    changes = ("--set", "weights=none", "--set", "epochs=1", "--set", "batch_size=3")
    data = MINIATURES["esc-50"](tmp_path / "data")  # 8 clips to train on
    result = CliRunner().invoke(app, ["train", "--recipe", name, "--data", str(data), "--out", str(out), *changes])
    assert result.exit_code == 0, result.output
    (row,) = read_metrics(out / "metrics.jsonl")
    assert row["step"] == 3
    assert math.isfinite(row["train_loss"])
    found = json.loads((out / "result.json").read_text())
    classes_less = (50 - 2) * (768 + 1)
    assert found["trainable_parameters"] == load(name).paper_row().trainable_parameters - classes_less
    assert math.isfinite(found["test"]["loss"])
    weights, _ = read_safetensors(out / "adapter.safetensors")
    assert sum(weight.numel() for weight in weights.values()) == found["trainable_parameters"]
    ups = [weight for key, weight in weights.items() if key.endswith("up.weight")]
    assert len(ups) == 2 * 12
    assert all(weight.isfinite().all() and weight.any() for weight in ups)  # they started from zero


@pytest.fixture(scope="module")
def miniatures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("miniatures")
    return {name: write(root / name) for name, write in MINIATURES.items()}


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_on_a_miniature_of_its_data_set(name: str, miniatures: dict[str, Path], tmp_path: Path) -> None:
    result = train(name, miniatures[data_set(name)], tmp_path / "run")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    assert found["test"]["clips"] == {"epic-sounds": 4, "esc-50": 2, "speech-commands": 2}[data_set(name)]
    assert found["chosen_by"] == ("validation" if data_set(name) == "speech-commands" else "last epoch")
    saved, packaged = Recipe.load(tmp_path / "run" / "recipe.yaml").to_dict(), load(name).to_dict()
    changed = {field for field in saved if saved[field] != packaged[field]}
    assert changed == {"data", "backbone", "backbone_options", "weights", "epochs", "batch_size"}


def test_masks_reach_the_augmentation(
    miniatures: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    class Noted(SpecAugment):
        def __init__(self, *arguments: Any) -> None:
            made.append(arguments)
            super().__init__(*arguments)

    monkeypatch.setattr(loop, "SpecAugment", Noted)
    for name in ("epic-sounds-probe", "speech-commands-probe"):
        assert train(name, miniatures[data_set(name)], tmp_path / name).exit_code == 0
    assert made == [(27, 25, 2, "mean"), (48, 48, 1, "zero")]


def test_a_name_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(recipe_text("esc-50-probe"))
    assert read_recipe(file) == read_recipe(str(file)) == read_recipe("esc-50-probe")
    file.rename(tmp_path / "mine")
    assert read_recipe(tmp_path / "mine") == read_recipe("esc-50-probe")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("esc-50-prob", "esc-50-prob: no recipe of that name and no YAML file; did you mean 'esc-50-probe'?"),
        ("magic", "magic: no recipe of that name and no YAML file; `fastloaa recipes` lists those that there are"),
        ("magic.yaml", "magic.yaml: no such file; expected a recipe in YAML"),
    ],
)
def test_what_is_neither(name: str, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        read_recipe(name)
    assert str(caught.value) == message


def test_what_the_paper_says_changes_nothing(miniatures: dict[str, Path], tmp_path: Path) -> None:
    for out, paper in (("with", None), ("without", "paper={}")):
        assert train("esc-50-probe", miniatures["esc-50"], tmp_path / out, *filter(None, (paper,))).exit_code == 0
    weights = [(tmp_path / out / "adapter.safetensors").read_bytes() for out in ("with", "without")]
    assert weights[0] == weights[1]


def test_an_unknown_name_in_paper_is_an_error() -> None:
    with pytest.raises(OptionError, match="unknown paper option 'row'; did you mean 'rows'"):
        Recipe(data="x", paper={"row": ["Table 2: Linear Probe"]})
