"""Every field of recipes and of files' metadata left out, one at a time: its default, or one line that names it."""

import copy
import json
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors import safe_open
from safetensors.torch import save_file
from typer.testing import CliRunner

from fastloaa import AST, adapt, load_adapter, save_adapter
from fastloaa.cli import app
from fastloaa.errors import FastloaaError
from fastloaa.files import FileError, read_json, understanding
from fastloaa.methods import build_method
from fastloaa.training import OptionError, Recipe, recipes
from fastloaa.training.checkpoint import Checkpoint
from fastloaa.training.paper import PaperRow
from fastloaa.training.sweep_table import Outcome, Trial
from helpers.checkpoints import CHECKPOINT
from helpers.small import SMALL, small_ast

RECIPE = Recipe(
    data="sounds",
    epochs=3,
    average_epochs=2,
    schedule="steps",
    schedule_options={"epochs": [1], "factors": [0.5]},
    mean=-4.0,
    std=4.0,
    trackers=("csv",),
    paper={
        "rows": ["Table 2"],
        "share": "5%",
        "classes": 50,
        "trainable_parameters": 39986,
        "figures": {"mAP": "65.6"},
    },
)


@pytest.mark.parametrize("name", [field.name for field in fields(Recipe)])
def test_a_recipe_without_a_field(name: str, tmp_path: Path) -> None:
    values = RECIPE.to_dict()
    del values[name]
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    together = {"data": "data is missing", "mean": "mean and std go together", "std": "mean and std go together"}
    together["schedule"] = "unknown cosine option"
    if name in together:
        with pytest.raises(OptionError, match=together[name]):
            Recipe.load(path)
    else:
        default = getattr(Recipe(data="x"), name)
        assert Recipe.load(path) == Recipe.from_dict(RECIPE.to_dict() | {name: default})


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of the package's recipes."""
    monkeypatch.setattr(recipes, "_folder", lambda: tmp_path)
    return tmp_path


LEFT_OUT = [None, "paper", *(f"paper.{field.name}" for field in fields(PaperRow))]


@pytest.mark.parametrize("name", [*LEFT_OUT, *(f.name for f in fields(Recipe) if f.name != "paper")])
def test_the_list_of_recipes(name: str | None, package: Path) -> None:
    values = RECIPE.to_dict()
    section, _, key = (name or "").partition(".")
    if key:
        values[section].pop(key, None)
    else:
        values.pop(section, None)
    (package / "mine.yaml").write_text(yaml.safe_dump(values))
    listed = CliRunner().invoke(app, ["recipes"])
    assert listed.exit_code == 0, listed.stderr
    assert "mine" in listed.stdout
    shown = CliRunner().invoke(app, ["recipes", "--json"])
    assert shown.exit_code == 0
    assert json.loads(shown.stdout) == {"mine": values.get("paper", {})}


@pytest.mark.parametrize("text", ["", "paper:\n", "paper: {}\n", "# a comment\n", "lr: 1e-3\n"])
def test_the_list_of_recipes_that_say_little(text: str, package: Path) -> None:
    (package / "mine.yaml").write_text(text)
    assert CliRunner().invoke(app, ["recipes"]).exit_code == 0
    shown = CliRunner().invoke(app, ["recipes", "--json"])
    assert json.loads(shown.stdout) == {"mine": {}}


@pytest.mark.parametrize("text", ["paper: 5\n", "paper: [1]\n", "paper: {classes: many}\n", "paper: {colour: red}\n"])
def test_a_recipe_with_an_odd_paper_is_one_line(text: str, package: Path) -> None:
    (package / "mine.yaml").write_text(text)
    result = CliRunner().invoke(app, ["recipes"])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def write(path: Path, tensors: dict[str, Any], metadata: Any) -> None:
    save_file(tensors, path, {"fastloaa": json.dumps(metadata)})


def contents(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["fastloaa"])  # noqa: SIM118


def places(values: Any) -> list[tuple[str, ...]]:
    """The paths of all names in nested mappings."""
    if not isinstance(values, dict):
        return []
    return [place for name, value in values.items() for place in [(name,), *((name, *rest) for rest in places(value))]]


def changed(values: dict[str, Any], place: tuple[str, ...], change: Callable[[dict[str, Any], str], Any]) -> Any:
    """A copy in which `change(mapping, name)` was done at one place."""
    copied = json.loads(json.dumps(values))
    section = copied
    for name in place[:-1]:
        section = section[name]
    change(section, place[-1])
    return copied


ODD: list[Any] = [None, [], {}, "x", -1, 1.5, True, [[1]], 10**30]
CHANGES: list[Callable[[dict[str, Any], str], Any]] = [
    lambda section, name: section.pop(name),
    *(lambda section, name, value=value: section.update({name: value}) for value in ODD),  # type: ignore[misc]
]
CONFIG = {"backbone": "deit_tiny_distilled_patch16_224", "backbone_options": SMALL | {"depth": 1}}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    names = ("adapter", "convpass", "checkpoint")
    paths = {name: folder / f"{name}.safetensors" for name in names}
    small_ast(backbone_options=SMALL | {"depth": 1}).save(folder / "backbone.safetensors")
    save_adapter(adapt(plain(folder), bottleneck=2), paths["adapter"])
    method = build_method("convpass")
    method.save(method.apply(plain(folder)), paths["convpass"])
    CHECKPOINT.save(paths["checkpoint"])
    return paths


@cache
def built(folder: Path) -> AST:
    return AST(5, frames=64, weights=folder / "backbone.safetensors", **CONFIG)  # type: ignore[arg-type]


def plain(folder: Path) -> AST:
    return copy.deepcopy(built(folder))


READERS: dict[str, Callable[[Path, Path], object]] = {
    "adapter": lambda path, folder: load_adapter(plain(folder), path),
    "convpass": lambda path, folder: build_method("convpass").load(path, folder / "backbone.safetensors"),
    "checkpoint": lambda path, folder: Checkpoint.load(path),
}


@pytest.mark.parametrize("kind", READERS)
def test_metadata_of_another_kind(kind: str, files: dict[str, Path], tmp_path: Path) -> None:
    tensors, _ = contents(files[kind])
    for value in ODD:
        write(tmp_path / "a.safetensors", tensors, value)
        with pytest.raises(FileError, match=r"a\.safetensors"):
            READERS[kind](tmp_path / "a.safetensors", files[kind].parent)


@pytest.mark.parametrize("kind", READERS)
def test_metadata_without_a_field_or_with_an_odd_one(kind: str, files: dict[str, Path], tmp_path: Path) -> None:
    tensors, metadata = contents(files[kind])
    path = tmp_path / "a.safetensors"
    refused = set()
    for place in places(metadata):
        if kind == "convpass" and place[0] == "model":
            continue  # an AST of these arguments says itself what is wrong with them
        for change in CHANGES:
            write(path, tensors, changed(metadata, place, change))
            try:
                READERS[kind](path, files[kind].parent)
            except FastloaaError as error:  # anything else is a traceback
                refused.add((place[0], len(str(error).splitlines())))
    expected = {
        "adapter": {"kind", "adapt", "backbone", "initialisation", "model"},
        "convpass": {"method", "options", "backbone"},
        "checkpoint": {"kind", "position", "model", "origin", "scaler"},
    }
    assert refused == {(name, 1) for name in expected[kind]}


RESULT = {
    "trainable_parameters": 5,
    "seconds": 1.5,
    "chosen_epoch": 2,
    "chosen_by": "last epoch",
    "test": {"accuracy": 0.5, "mAP": 0.6},
}


@pytest.mark.parametrize("place", places(RESULT), ids=".".join)
def test_a_result_without_a_field_or_with_an_odd_one(place: tuple[str, ...], tmp_path: Path) -> None:
    trial = Trial("a", None, 0, Recipe(data="x"), tmp_path)
    assert Outcome.of(trial, RESULT, []).mAP == 0.6
    for change in (CHANGES[0], CHANGES[2], CHANGES[3]):
        (tmp_path / "result.json").write_text(json.dumps(changed(RESULT, place, change)))
        with pytest.raises(FileError, match=r"result\.json: damaged"), understanding(tmp_path / "result.json", "it"):
            Outcome.of(trial, read_json(tmp_path / "result.json"), [])
