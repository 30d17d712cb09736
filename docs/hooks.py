"""Links from docs/ to the rest of the repository: what they lead to comes along, under repository/ in the site.

The pages keep the relative links that a browser of the repository follows.
"""

import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

BESIDE = "repository/"
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|[#/<])[^)\s#]+")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add what is linked, and what those pages link in turn."""
    root = Path(config.config_file_path).parent
    pages = list(files.documentation_pages())
    while pages:
        page = pages.pop()
        for target in LINK.findall(page.content_string):
            path = in_repository(page, target)
            uri = in_site(path)
            if uri.startswith(BESIDE) and uri not in files.src_uris and (root / path).is_file():
                file = File.generated(config, uri, abs_src_path=str(root / path))
                files.append(file)
                pages += [file] if file.is_documentation_page() else []
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: object) -> str:
    """Point the links at what was added; mkdocs then checks them as any other."""

    def moved(link: re.Match[str]) -> str:
        return relpath(in_site(in_repository(page.file, link[0])), dirname(page.file.src_uri) or ".")

    return LINK.sub(moved, markdown)


def in_repository(page: File, target: str) -> str:
    """The path in the repository of a link's target."""
    place = page.src_uri.removeprefix(BESIDE) if page.src_uri.startswith(BESIDE) else join("docs", page.src_uri)
    return normpath(join(dirname(place), target))


def in_site(path: str) -> str:
    """Where the site has a file of the repository."""
    return path.removeprefix("docs/") if path.startswith("docs/") else BESIDE + path
