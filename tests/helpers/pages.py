"""README and docs, read as their readers do: Python is run, and commands are found."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import SkipTest

import pytest
from sybil import Document, Example
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
_SHOWN_ERROR = re.compile(r"\s*```text\n(\w+: .*?)\n```", re.DOTALL)
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_SHELL = ("", "bash", "console", "sh")
_INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def has_python(page: Path) -> bool:
    return bool(_parsed(page).regions)


def examples(page: Path, names: dict[str, Any], heading: str | None = None) -> list[Example]:
    """The Python blocks of a page, or of the section under a heading, which will share `names`.

    Blocks in a comment (`<!-- invisible-code: python`) are set-up that no reader needs; a block after
    `<!-- skip: next "reason" -->` is passed over.
    """
    document = _parsed(page)
    document.namespace = names
    found = [example for example in document.examples() if heading in (None, _heading(document.text, example.start))]
    assert found, f"{name_of(page)}: no Python under {heading!r}"
    return found


def run(page: Path, names: dict[str, Any], heading: str | None = None) -> None:
    """Evaluate the blocks in order. One that a block of text such as `ValueError: what it says` follows raises just
    that; "…" in the text stands for anything."""
    for example in examples(page, names, heading):
        if isinstance(example.parsed, tuple):
            assert example.parsed[1], f"{name_of(page)}:{example.line}: a skip without a reason"
        shown = _SHOWN_ERROR.match(example.document.text, example.end)
        try:
            if shown is None:
                example.evaluate()
            else:
                _raises(example, " ".join(shown[1].split()))
        except SkipTest:
            continue


def commands(page: Path) -> Iterator[list[str]]:
    """Command lines in a page's blocks and in its sentences, as words; comments, redirections and what `...` leaves
    open are cut off."""
    text = page.read_text(encoding="utf-8")
    lines = [line for language, block in _FENCED.findall(text) if language in _SHELL for line in _lines(block)]
    for line in [*lines, *(_INLINE.findall(_FENCED.sub("", text)))]:
        if re.match(r"\s*(fastloaa [a-z]|python (bench|examples)/|accelerate launch )", line):
            words = shlex.split(line, comments=True)
            yield words[: next((i for i, word in enumerate(words) if word in ("...", ">", "|", "&&")), None)]


def _lines(block: str) -> list[str]:
    return block.replace("\\\n", " ").splitlines()


def _parsed(page: Path) -> Document:
    return Document.parse(str(page), PythonCodeBlockParser(), SkipParser(), encoding="utf-8")


def _heading(text: str, position: int) -> str | None:
    return (re.findall(r"^## (.*)$", text[:position], re.MULTILINE) or [None])[-1]


def _raises(example: Example, shown: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 (its kind and message are compared below)
        example.evaluate()
    given = f"{caught.type.__name__}: {' '.join(str(caught.value).split())}"
    wanted = ".*".join(re.escape(part) for part in shown.split("…"))
    assert re.fullmatch(wanted, given), f"{name_of(Path(example.path))}:{example.line} says {shown!r}, got {given!r}"
