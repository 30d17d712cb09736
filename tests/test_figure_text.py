"""Names in figures: drawn where a font of the machine has their characters, escaped where none has."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

from fastloaa.figure_text import drawable


@pytest.fixture(autouse=True)
def fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """matplotlib's own alone, whatever this machine has."""
    own = [font for font in fontManager.ttflist if "matplotlib" in font.fname]
    monkeypatch.setattr(fontManager, "ttflist", own)
    fontManager._findfont_cached.cache_clear()
    yield
    fontManager._findfont_cached.cache_clear()


def install(folder: Path, family: str, characters: str) -> None:
    """A font that has a square for each of the characters."""
    builder = FontBuilder(1000)
    names = {ord(character): f"u{ord(character):04X}" for character in characters}
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap(names)
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for point in ((0, 700), (700, 700), (700, 0)):
        pen.lineTo(point)
    pen.closePath()
    builder.setupGlyf(dict.fromkeys([".notdef", *names.values()], pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys([".notdef", *names.values()], (800, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    path = folder / f"{family}.ttf"
    builder.save(path)
    fontManager.addfont(path)


def draw(names: list[str], families: list[str], path: Path) -> None:
    """As labels and titles are; a missing character is a warning of matplotlib's."""
    figure = Figure()
    for place, name in enumerate(names):
        figure.text(0.1, 0.1 * place, name, fontfamily=families, parse_math=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(path)


NAMES = ["猫", "玻璃破碎的声音", "한국어", "हिन्दी", "بومة", "🎉 party", "👩\u200d👩\u200d👧"]
NAMES += ["e\u0301", "Säge", "$a_b$", "a\nb", "\x1b[1m"]


def test_what_no_font_has_is_escaped(tmp_path: Path) -> None:
    names, families = drawable(NAMES, longest=60)
    draw(names, families, tmp_path / "a.png")
    assert names[:2] == [r"\u732b", r"\u73bb\u7483\u7834\u788e\u7684\u58f0\u97f3"]
    assert names[5] == r"\U0001f389 party"
    assert names[7:] == ["e\u0301", "Säge", "$a_b$", r"a\nb", r"\x1b[1m"]


def test_a_font_that_has_it_is_taken(tmp_path: Path) -> None:
    """As few of them as will do."""
    install(tmp_path, "One Of Them", "猫")
    install(tmp_path, "Both", "猫狗")
    install(tmp_path, "Another Script", "한")
    names, families = drawable(["猫", "狗 dog", "鳥"], longest=60)
    draw(names, families, tmp_path / "a.png")
    assert names == ["猫", "狗 dog", r"\u9ce5"]
    assert families[1:] == ["Both"]
    names, families = drawable(["猫", "한"], longest=60)
    draw(names, families, tmp_path / "a.png")
    assert names == ["猫", "한"]
    assert families[1:] == ["Another Script", "Both"]


def test_plain_names_take_no_other_font() -> None:
    assert drawable(["dog", "chainsaw [b]"], longest=60) == (["dog", "chainsaw [b]"], ["sans-serif"])


def test_long_names_lose_their_middle() -> None:
    (name,), _ = drawable(["begin" + "x" * 300 + "end"], longest=20)
    assert len(name) == 20
    assert name.startswith("begin")
    assert name.endswith("end")
