"""Which layout a folder has."""

from pathlib import Path

import pytest
from tones import write_esc50, write_tone

from fastloaa.data import DataError, load_esc50, load_folder, load_splits


def test_esc50_is_known_by_its_table(tmp_path: Path) -> None:
    rows = [f"{fold}-{i}.wav,{fold},{i % 2},c{i % 2},True,{fold}{i},A" for fold in range(1, 6) for i in range(4)]
    root = write_esc50(tmp_path / "esc", rows)
    assert load_splits(root, test_fold=4) == load_esc50(root, 4)
    assert load_splits(root, test_fold=4, validation=0.25, seed=3) == load_esc50(root, 4, 0.25, 3)


def test_folders_are_the_other_layout(tmp_path: Path) -> None:
    for label in ("a", "b"):
        for i in range(10):
            write_tone(tmp_path / label / f"{i}.wav")
    assert load_splits(tmp_path) == load_folder(tmp_path)
    assert load_splits(str(tmp_path), validation=0.3, seed=2) == load_folder(tmp_path, validation=0.3, seed=2)


def test_what_was_found_is_said(tmp_path: Path) -> None:
    expected = "; expected ESC-50's layout (meta/esc50.csv and audio/) or a folder of sounds per class (label/clip.wav)"

    def message(path: Path) -> str:
        with pytest.raises(DataError) as error:
            load_splits(path)
        return str(error.value)

    assert message(tmp_path) == f"{tmp_path}: an empty folder{expected}"
    assert message(tmp_path / "gone") == f"{tmp_path / 'gone'}: no such folder{expected}"
    tone = write_tone(tmp_path / "a.wav")
    assert message(tone) == f"{tone}: a file, not a folder{expected}"
    (tmp_path / "docs").mkdir()
    assert message(tmp_path) == f"{tmp_path}: holds a.wav, docs/{expected}"
    for i in range(5):
        write_tone(tmp_path / f"b{i}.wav")
    assert message(tmp_path) == f"{tmp_path}: holds a.wav, b0.wav, b1.wav, b2.wav, b3.wav and 2 more{expected}"
