"""Command lines in README and docs are those of the programs: every command, option, recipe and script exists."""

import argparse
import re
import runpy
import sys
from dataclasses import fields
from importlib.metadata import metadata
from pathlib import Path

import pytest
import typer

from fastloaa.cli import app
from fastloaa.training import Recipe
from fastloaa.training.recipe import parse_assignments
from fastloaa.training.recipes import recipe_names
from helpers import pages

COMMANDS = [(pages.name_of(page), words) for page in pages.PAGES for words in pages.commands(page)]
OURS = sorted({tuple(words) for _, words in COMMANDS if words[0] != "python"})
SCRIPTS = sorted({tuple(words[1:]) for _, words in COMMANDS if words[0] == "python"})


def test_pages_have_commands() -> None:
    assert {"README.md", "docs/recipes.md", "docs/scaling.md", "docs/kernels.md"} <= {page for page, _ in COMMANDS}
    assert {words[0] for _, words in COMMANDS} == {"fastloaa", "python", "accelerate"}


@pytest.mark.parametrize("words", OURS, ids=" ".join)
def test_fastloaa_has_the_options(words: tuple[str, ...]) -> None:
    words = words[words.index("fastloaa.cli" if words[0] == "accelerate" else "fastloaa") + 1 :]
    group = typer.main.get_command(app)
    context = group.make_context("fastloaa", list(words))
    name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
    try:
        given = command.make_context(name, rest, parent=context).params
    except typer.BadParameter as error:
        if str(error).startswith("Missing parameter"):  # a sentence that names a command, or some of its options
            return
        raise
    set_keys = {key.partition(".")[0] for key in parse_assignments(given.get("assignments") or ())}
    assert set_keys <= {field.name for field in fields(Recipe)}
    recipes = {word for word in words if re.match(r"(esc-50|epic-sounds|speech-commands)-", word)}
    assert recipes <= set(recipe_names())


def test_extras_that_are_named_exist() -> None:
    extras = set(metadata("fastloaa").get_all("Provides-Extra") or ())
    named = {page: re.findall(r"fastloaa\[([\w,-]+)\]", page.read_text(encoding="utf-8")) for page in pages.PAGES}
    assert any(named.values())
    for page, lists in named.items():
        assert {extra for extras_of in lists for extra in extras_of.split(",")} <= extras, pages.name_of(page)


class Parsed(Exception):
    """The arguments were understood."""


@pytest.mark.parametrize("words", SCRIPTS, ids=" ".join)
def test_scripts_have_the_options(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each script runs until it has parsed them."""
    parse = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, *arguments: object) -> None:
        parse(self, *arguments)  # type: ignore[call-overload]
        raise Parsed

    script = pages.ROOT / words[0]
    before = set(sys.modules)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(sys, "argv", list(words))
    monkeypatch.syspath_prepend(str(script.parent))
    try:
        with pytest.raises(Parsed):
            runpy.run_path(str(script), run_name="__main__")
    finally:
        for name in set(sys.modules) - before:
            if Path(getattr(sys.modules[name], "__file__", None) or "").parent == script.parent:
                del sys.modules[name]
