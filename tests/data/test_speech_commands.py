"""Speech Commands' layout and its official lists."""

from pathlib import Path

import pytest

from fastloaa.data import Clip, DataError, load_speech_commands
from helpers.tones import write_tone

FILES = (
    "yes/a1_nohash_0.wav",
    "yes/b2_nohash_0.wav",
    "yes/c3_nohash_1.wav",
    "no/a1_nohash_0.wav",
    "no/c3_nohash_0.wav",
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two words of three speakers, with the noise and the texts of the official archive."""
    root = tmp_path / "mini"
    for name in (*FILES, "_background_noise_/white_noise.wav"):
        write_tone(root / name)
    (root / "README.md").write_text("Speech Commands\n")
    (root / "validation_list.txt").write_text("yes/b2_nohash_0.wav\n")
    (root / "testing_list.txt").write_text("no/c3_nohash_0.wav\nyes/c3_nohash_1.wav\n")
    return root


def test_lists_name_validation_and_test_and_the_rest_is_for_training(root: Path) -> None:
    splits = load_speech_commands(root)
    assert (splits.name, splits.classes) == ("mini", ("no", "yes"))
    assert splits.train == (Clip(root / "no" / "a1_nohash_0.wav", (0,)), Clip(root / "yes" / "a1_nohash_0.wav", (1,)))
    assert splits.validation == (Clip(root / "yes" / "b2_nohash_0.wav", (1,)),)
    assert splits.test == (Clip(root / "no" / "c3_nohash_0.wav", (0,)), Clip(root / "yes" / "c3_nohash_1.wav", (1,)))
    assert not splits.multi_label


@pytest.mark.parametrize("name", ["validation_list.txt", "testing_list.txt"])
def test_a_missing_list_is_named_with_the_layout(root: Path, name: str) -> None:
    (root / name).unlink()
    with pytest.raises(DataError) as error:
        load_speech_commands(root)
    assert str(error.value) == (
        f"{root / name}: no such file; expected Speech Commands' layout, "
        "validation_list.txt, testing_list.txt and a folder per word"
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("yes/gone_nohash_0.wav", "is missing"),
        ("no/c3_nohash_0.wav", "is no clip of a word, or is listed twice"),
        ("yes/b2_nohash_0.wav", "is no clip of a word, or is listed twice"),
        ("_background_noise_/white_noise.wav", "is no clip of a word, or is listed twice"),
        ("../mini/yes/a1_nohash_0.wav", "is no clip of a word, or is listed twice"),
    ],
)
def test_a_wrong_line_is_named(root: Path, line: str, message: str) -> None:
    with (root / "testing_list.txt").open("a") as file:
        file.write(f"\n{line}\n")
    with pytest.raises(DataError) as error:
        load_speech_commands(root)
    assert str(error.value) == (
        f"{root / 'testing_list.txt'} line 4: {line} {message}; download it again or delete the line"
    )


def test_a_list_that_is_no_text_is_refused(root: Path) -> None:
    (root / "testing_list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"testing_list\.txt: not a text file"):
        load_speech_commands(root)
