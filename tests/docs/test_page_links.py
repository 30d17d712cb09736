"""Links inside the repository lead somewhere, in the places where a browser of the repository looks."""

import re
from pathlib import Path

import pytest

from helpers import pages

_LINK = re.compile(r"\]\((?![a-z]+:)([^)\s]*)\)")
_CODE = re.compile(r"^```.*?^```|`[^`]*`", re.DOTALL | re.MULTILINE)


def headings(page: Path) -> set[str]:
    """Their anchors, as repository browsers and mkdocs make them."""
    lines = re.findall(r"^#+ (.*)$", _CODE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).strip().replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(_CODE.sub("", page.read_text(encoding="utf-8"))):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.is_file(), f"{pages.name_of(page)} links to {link}"
        assert not anchor or anchor in headings(target), f"{pages.name_of(page)} links to {link}"
