"""The order of the house: imports go one way, by their text alone, those within functions too."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from helpers.project import PROJECT, ROOT

LAYERS = (
    {"kernels", "lazy", "text"},
    {"errors"},
    {"extras"},
    {"figure_text", "inputs"},
    {"files", "grid", "probabilities"},
    {"ops"},
    {"audio", "backbones"},
    {"adapters", "data"},
    {"models"},
    {"attention", "callbacks", "methods"},
    {"export", "training"},
    {"hub", "peft"},
    {"fastloaa"},
    {"cli"},
    {"__main__"},
)
"""The packages and single modules of fastloaa, and its public names, from the ground up: each imports from below."""

Import = tuple[str, bool]  # the name of a module, and whether it is imported when the importing module is


SETUP = PROJECT["tool"]["setuptools"]


def modules() -> dict[str, Path]:
    """The library's modules by their names when installed."""
    found = {}
    for package, folder in SETUP["package-dir"].items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = [package, *path.relative_to(ROOT / folder).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def statements(node: ast.AST, at_import: bool = True) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Import statements, and whether they run when the file is imported; none for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, at_import
        elif isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for other in child.orelse:
                yield from statements(other, at_import)
        else:
            yield from statements(child, at_import and not isinstance(child, ast.FunctionDef | ast.Lambda))


def imported(source: str, importer: str) -> set[Import]:
    """Modules of the library that a module imports, and the packages that Python imports on the way to them."""
    found = set()
    for statement, at_import in statements(ast.parse(source)):
        if isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names if alias.name != "fastloaa"]  # for its __version__
        else:
            assert not statement.level, f"{importer}: relative import; write the package's name"
            whole = [f"{statement.module}.{alias.name}" for alias in statement.names if alias.name != "__version__"]
            names = [name if name in MODULES else str(statement.module) for name in whole]
        for name in names:
            parts = name.split(".")
            on_the_way = (".".join(parts[:end]) for end in range(2, len(parts)))
            reached = {name, *(package for package in on_the_way if not f"{importer}.".startswith(f"{package}."))}
            found |= {(each, at_import) for each in reached & set(MODULES)}
    return found


IMPORTS = {name: imported(path.read_text(), name) for name, path in MODULES.items()}


def room(module: str) -> str:
    """ops, of fastloaa.ops.library."""
    return [*module.split("."), module][1]


FLOOR = {name: number for number, layer in enumerate(LAYERS) for name in layer}


def test_every_package_is_installed() -> None:
    packages = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    assert packages == set(SETUP["packages"]) - {"fastloaa.recipes"}  # which is YAML alone


def test_every_room_has_its_layer() -> None:
    assert set(map(room, MODULES)) == set(FLOOR)


def test_imports_go_down() -> None:
    upward = [
        f"{importer} imports {name}"
        for importer, names in IMPORTS.items()
        for name, _ in names
        if room(importer) != room(name) and FLOOR[room(importer)] <= FLOOR[room(name)]
    ]
    assert not upward


def test_no_module_waits_for_itself() -> None:
    graph = {importer: [name for name, at_import in names if at_import] for importer, names in IMPORTS.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        pytest.fail(" imports ".join(reversed(circle.args[1])))


def test_kernels_know_kernels_alone() -> None:
    known = {name for importer, names in IMPORTS.items() if room(importer) == "kernels" for name, _ in names}
    assert set(map(room, known)) == {"kernels"}
