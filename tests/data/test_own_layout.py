"""A layout of one's own: the entry of docs/extending.md, and folders that are known by it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fastloaa.data import DataError, load_splits
from helpers import extending
from helpers.tones import write_tone

ROWS = [f"{species}/{site}{i}.wav,{species},{site}" for species in ("wren", "owl") for site in "abcd" for i in range(2)]


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    with extending.example("A layout of data sets"):
        yield


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    rows = [*ROWS, "wren/l.wav,wren,lake", "owl/l.wav,owl,lake"]
    for row in rows:
        write_tone(tmp_path / "birds" / row.split(",")[0])
    (tmp_path / "birds" / "birds.csv").write_text("\n".join(["file,species,site", *rows]))
    return tmp_path / "birds"


def test_a_folder_is_known_by_it(birds: Path) -> None:
    splits = load_splits(birds)
    assert (splits.name, splits.classes) == ("birds", ("owl", "wren"))
    assert {clip.path for clip in splits.test} == {birds / "wren/l.wav", birds / "owl/l.wav"}
    assert (len(splits.train), splits.validation) == (len(ROWS), ())
    assert {clip.path.parent.name: splits.classes[clip.labels[0]] for clip in splits.train} == {
        "owl": "owl",
        "wren": "wren",
    }
    held_out = load_splits(birds, validation=0.25, seed=3)
    assert held_out.validation
    assert held_out == load_splits(birds, validation=0.25, seed=3)


def test_the_folder_above_is_told_of_it(birds: Path) -> None:
    with pytest.raises(DataError, match="holds no data set, but birds in it has Birds's files; give"):
        load_splits(birds.parent)
    with pytest.raises(DataError, match=r"the official layout of one of ESC-50, .*, Birds"):
        load_splits(birds / "none")
