"""ESC-50's layout and its folds."""

from pathlib import Path

import pytest

from fastloaa.data import Clip, DataError, load_esc50
from helpers.tones import write_esc50

# Targets 38, 0 and 10 in this order: official numbers with gaps, not sorted in the file.
ROWS = [
    f"{fold}-{source}-{take}-{target}.wav,{fold},{target},{category},True,{source},{take}"
    for fold in range(1, 6)
    for target, category in ((38, "water_drops"), (0, "dog"), (10, "rain"))
    for source, take in ((f"{fold}{target}", "A"), (f"{fold}{target}", "B"), (f"{fold}9{target}", "A"))
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_esc50(tmp_path / "mini", ROWS)


def test_one_fold_is_tested_and_four_are_trained_on(root: Path) -> None:
    splits = load_esc50(root, test_fold=3)
    assert splits.name == "mini (test fold 3)"
    assert splits.classes == ("dog", "rain", "water_drops")
    assert {clip.path.name[0] for clip in splits.train} == {"1", "2", "4", "5"}
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (36, 0, 9)
    assert splits.test == (
        Clip(root / "audio" / "3-338-A-38.wav", (2,), "338"),
        Clip(root / "audio" / "3-338-B-38.wav", (2,), "338"),
        Clip(root / "audio" / "3-3938-A-38.wav", (2,), "3938"),
        Clip(root / "audio" / "3-30-A-0.wav", (0,), "30"),
        Clip(root / "audio" / "3-30-B-0.wav", (0,), "30"),
        Clip(root / "audio" / "3-390-A-0.wav", (0,), "390"),
        Clip(root / "audio" / "3-310-A-10.wav", (1,), "310"),
        Clip(root / "audio" / "3-310-B-10.wav", (1,), "310"),
        Clip(root / "audio" / "3-3910-A-10.wav", (1,), "3910"),
    )


def test_every_clip_is_tested_in_exactly_one_fold(root: Path) -> None:
    tested = [clip.path.name for fold in range(1, 6) for clip in load_esc50(root, fold).test]
    assert sorted(tested) == sorted(row.split(",")[0] for row in ROWS)


def test_validation_comes_from_the_training_folds_by_class_and_source(root: Path) -> None:
    splits = load_esc50(root, test_fold=2, validation=0.25, seed=4)
    assert len(splits.test) == 9
    assert [sum(clip.labels == (label,) for clip in splits.validation) for label in range(3)] == [3, 3, 3]
    assert not {clip.group for clip in splits.validation} & {clip.group for clip in splits.train}
    assert splits == load_esc50(root, test_fold=2, validation=0.25, seed=4)
    assert splits != load_esc50(root, test_fold=2, validation=0.25, seed=5)


@pytest.mark.parametrize("fold", [0, 6, -1])
def test_a_test_fold_out_of_range_is_refused(root: Path, fold: int) -> None:
    with pytest.raises(DataError, match=f"^ESC-50 has no fold {fold}; give a test fold from 1 to 5$"):
        load_esc50(root, test_fold=fold)


def test_another_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        load_esc50(tmp_path)
    assert str(error.value) == (
        f"{tmp_path / 'meta' / 'esc50.csv'}: no such file; "
        "expected ESC-50's layout, meta/esc50.csv and audio/ in one folder"
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x.wav,6,0,dog,True,7,A", "line 3: fold 6; expected 1 to 5"),
        ("x.wav,one,0,dog,True,7,A", "line 3: fold 'one'; expected an integer"),
        ("x.wav,1,dog,dog,True,7,A", "line 3: target 'dog'; expected an integer"),
        ("x.wav,1,0,cat,True,7,A", "line 3: target 0 is 'cat' here and 'dog' above; correct one"),
        ("x.wav,1,0", "line 3: no category, src_file; fill it in or delete the line"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, line: str, message: str) -> None:
    root = write_esc50(tmp_path / "mini", ["y.wav,2,0,dog,True,6,A", line])
    with pytest.raises(DataError) as error:
        load_esc50(root)
    assert str(error.value) == f"{root / 'meta' / 'esc50.csv'} {message}"


def test_a_missing_file_is_named_with_its_row(root: Path) -> None:
    missing = root / "audio" / "1-138-B-38.wav"
    missing.unlink()
    with pytest.raises(DataError) as error:
        load_esc50(root)
    expected = f"{root / 'meta' / 'esc50.csv'} line 3: no file {missing}; download it again or delete the line"
    assert str(error.value) == expected


def test_missing_columns_are_named(tmp_path: Path) -> None:
    root = write_esc50(tmp_path / "mini", ["a.wav,1,0"], header="filename,fold,target")
    with pytest.raises(DataError, match=r"esc50\.csv: missing columns category, src_file; found: filename, fold, targ"):
        load_esc50(root)


def test_a_fold_without_clips_is_refused(tmp_path: Path) -> None:
    root = write_esc50(tmp_path / "mini", ["a.wav,1,0,dog,True,6,A", "b.wav,2,1,cat,True,7,A"])
    with pytest.raises(DataError, match=r"^mini \(test fold 5\): the test split is empty"):
        load_esc50(root, test_fold=5)
