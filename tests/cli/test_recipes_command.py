"""fastloaa recipes."""

import json

import yaml
from typer.testing import CliRunner

from fastloaa.cli import app
from fastloaa.training.recipes import read_recipe, recipe_names, recipe_text


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["recipes", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_the_list() -> None:
    code, stdout, _ = run()
    assert code == 0
    lines = {line.split("  ")[0]: line for line in stdout.splitlines()}
    assert all(name in lines for name in recipe_names())
    cells = [cell.strip() for cell in lines["epic-sounds-attn-t-2"].split("  ") if cell]
    assert cells == ["epic-sounds-attn-t-2", "Table 2: Attn(T) 2%", "2,026,028", "Top-1 54.52, mAP 0.234"]


def test_the_list_for_scripts() -> None:
    found = json.loads(run("--json")[1])
    assert list(found) == recipe_names()
    assert found["esc-50-full"]["figures"] == {"mAP": "87.9"}


def test_one_to_save_and_change() -> None:
    code, stdout, _ = run("speech-commands-attn-t-ffn-f-10")
    assert (code, stdout) == (0, recipe_text("speech-commands-attn-t-ffn-f-10"))
    assert yaml.safe_load(stdout)["method_options"] == {"attn": "time", "ffn": "freq", "bottleneck": 72}
    assert json.loads(run("esc-50-probe", "--json")[1]) == read_recipe("esc-50-probe")


def test_an_unknown_name() -> None:
    code, stdout, stderr = run("esc-50-ful")
    assert (code, stdout) == (2, "")
    assert stderr == "error: esc-50-ful: no recipe of that name and no YAML file; did you mean 'esc-50-full'?\n"
