"""The examples in docstrings, run; every public name has one."""

import doctest
from pathlib import Path
from typing import Any

import pytest

import fastloaa
import fastloaa.audio
import fastloaa.export
from fastloaa.extras import optional

PUBLIC = {
    f"{package.__name__}.{name}": getattr(package, name)
    for package in (fastloaa, fastloaa.export, fastloaa.audio)
    for name in package.__all__
} | {"fastloaa.extras.optional": optional}

EXAMPLES = {
    name: tests
    for name, value in PUBLIC.items()
    if callable(value)
    and (tests := [test for test in doctest.DocTestFinder(recurse=False).find(value, name) if test.examples])
}


class Runner(doctest.DocTestRunner):
    """An example that is skipped has not failed."""

    def report_unexpected_exception(self, out: Any, test: Any, example: Any, exc_info: Any) -> None:
        if isinstance(exc_info[1], pytest.skip.Exception):
            raise exc_info[1]
        super().report_unexpected_exception(out, test, example, exc_info)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # some write files
    said: list[str] = []
    for test in EXAMPLES[name]:
        result = Runner(optionflags=doctest.ELLIPSIS).run(test, out=said.append)
        assert not result.failed, "".join(said)


def test_every_public_name_has_an_example() -> None:
    bare = {name for name in fastloaa.__all__ if f"fastloaa.{name}" not in EXAMPLES}
    assert not bare
