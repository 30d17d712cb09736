"""Names in figures, in fonts that have their characters: none is drawn as an empty box."""

from fastloaa.extras import needs

needs("matplotlib")

from collections.abc import Iterable
from functools import lru_cache

from matplotlib import rcParams
from matplotlib.font_manager import FontProperties, findfont, fontManager
from matplotlib.ft2font import FT2Font

from fastloaa.text import printable

_NO_LETTERS = ("Last Resort", "cmex", "STIXSize")  # fonts of boxes, and of parts of formulas


def drawable(names: Iterable[str], longest: int) -> tuple[list[str], list[str]]:
    r"""Names as a figure can show them, and the font families to show them in: matplotlib's own, then what they lack.

    Characters that no font of this machine has become escapes such as `\u732b`.

    Args:
        longest: characters of a name; longer ones lose their middle.
    """
    lines = [printable(name) for name in names]
    families: list[str] = list(rcParams["font.family"])
    lacking = set("".join(lines)) - _characters(findfont(FontProperties(family=families)))
    while lacking:
        found = {family: lacking & _characters(path) for family, path in _fonts().items()}
        best = max(sorted(found), key=lambda family: len(found[family]))
        if not found[best]:
            break
        families.append(best)
        lacking -= found[best]
    escapes = {ord(character): character.encode("unicode_escape").decode() for character in lacking}
    return [_shortened(line.translate(escapes), longest) for line in lines], families


def _shortened(name: str, longest: int) -> str:
    half = longest // 2
    return name if len(name) <= longest else f"{name[: half - 1]}…{name[-half:]}"


def _fonts() -> dict[str, str]:
    """Family -> file."""
    return {font.name: font.fname for font in fontManager.ttflist if not font.name.startswith(_NO_LETTERS)}


@lru_cache(maxsize=4096)
def _characters(path: str) -> frozenset[str]:
    """What a font has outlines of; nothing where matplotlib cannot draw it, as pictures in colour."""
    try:
        font = FT2Font(path)
    except (OSError, RuntimeError):
        return frozenset()
    return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()
