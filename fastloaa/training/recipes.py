"""The recipes that come with the package, one for each row of the paper's Tables 2 and 3 and each data set."""

import difflib
import sys
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from fastloaa.inputs.options import OptionError
from fastloaa.training.recipe import read_yaml

if sys.version_info >= (3, 11):
    from importlib.resources.abc import Traversable
else:
    from importlib.abc import Traversable


def recipe_names() -> list[str]:
    """The names of the package's recipes, in alphabetical order."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _folder().iterdir() if entry.name.endswith(".yaml"))


def recipe_text(name: str) -> str:
    """The YAML of one of the package's recipes.

    Raises:
        OptionError: there is none of that name.
    """
    return _find(name).read_text(encoding="utf-8")


def read_recipe(recipe: str | Path) -> dict[str, Any]:
    """The fields that a recipe sets: one of the package's, by name, or a YAML file.

    Raises:
        OptionError: neither, or not YAML.
    """
    if Path(recipe).suffix in (".yaml", ".yml") or Path(recipe).is_file():
        return read_yaml(recipe)
    with as_file(_find(str(recipe))) as path:
        return read_yaml(path)


def _find(name: str) -> Traversable:
    names = recipe_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "`fastloaa recipes` lists those that there are"
        raise OptionError(f"{name}: no recipe of that name and no YAML file; {hint}")
    return _folder().joinpath(f"{name}.yaml")


def _folder() -> Traversable:
    return files("fastloaa").joinpath("recipes")
