"""YAML that is no recipe, whatever it does to PyYAML: one line, soon, without much memory."""

import tracemalloc
from pathlib import Path

import pytest

from fastloaa.training import OptionError, Recipe
from fastloaa.training.recipe import parse_value, read_yaml

LINES = "\n"
BILLION = LINES.join(["a0: &a0 [x, x, x, x, x, x, x, x, x]", *(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)
)])  # fmt: skip
MERGED = LINES.join(["a0: &a0 {x: 1}", *(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12)
)])  # fmt: skip

ODD = {
    "aliases of aliases": BILLION,
    "merged aliases": MERGED,
    "an alias of itself": "data: &a [*a]",
    "a mapping of itself": "&a {data: *a}",
    "deep lists": "data: " + "[" * 100_000,
    "deep and closed": "data: " + "[" * 5000 + "]" * 5000,
    "deep mappings": "data: " + "{a: " * 5000 + "}" * 5000,
    "deep blocks": "".join(f"{' ' * depth}a:\n" for depth in range(150)),
    "many values": "data: [" + "1, " * 20_000 + "]",
    "a large file": "data: x\n#" + "x" * 200_000,
    "a number of many digits": "lr: " + "9" * 5000,
    "a date that is none": "lr: 2001-99-99",
    "an integer that is none": "lr: !!int x",
    "a float that is none": "lr: !!float x",
    "a truth that is none": "lr: !!bool x",
    "a time that is none": "lr: !!timestamp x",
    "base64 that is none": "lr: !!binary ä",
    "code": "lr: !!python/object/apply:os.system [true]",
    "an unknown tag": "lr: !mine x",
    "a name that is a number": "1: 2",
    "a name that is a list": "[1, 2]: 3",
    "a name that is null": "~: 3",
    "a tab": "\tdata: x",
    "a zero byte": "data: \0",
    "two documents": "data: x\n---\ndata: y",
    "a list": "- data",
    "text": "data",
    "an unknown alias": "data: *a",
    "a date": "lr: 2001-01-01",
    "a set": "lr: !!set {a, b}",
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ODD)
def test_an_odd_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(ODD[name])
    tracemalloc.start()
    try:
        with pytest.raises(OptionError) as caught:
            Recipe.load(path)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 100e6
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 1000


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    for content in (b"\xff\xfe", b"data: \xe4", bytes(range(256))):
        (tmp_path / "recipe.yaml").write_bytes(content)
        with pytest.raises(OptionError, match="not YAML"):
            read_yaml(tmp_path / "recipe.yaml")


@pytest.mark.parametrize("text", ["[1", "!!int x", "2001-99-99", "*a", "&a [*a]", "[" * 5000, "{a: b: c}"])
def test_an_odd_value_on_the_command_line(text: str) -> None:
    with pytest.raises(OptionError, match="is not a value in YAML"):
        parse_value(text)


def test_aliases_as_people_use_them(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("data: &name sounds\nweights: *name\nmethod_options: &loaa {bottleneck: 8}\n")
    recipe = Recipe.load(path)
    assert (recipe.weights, recipe.method_options["bottleneck"]) == ("sounds", 8)
