"""UrbanSound8K's layout, and Kaggle's of it."""

from pathlib import Path

import pytest

from fastloaa.data import DataError, load_splits, load_urbansound8k

HEADER = "slice_file_name,fsID,start,end,salience,fold,classID,class"
# Two classes of the ten, three recordings, one of them in two folds against the rules.
ROWS = [
    f"{source}-{label}-0-{piece}.wav,{source},0.0,4.0,1,{fold},{label},{('air_conditioner', 'car_horn')[label]}"
    for fold in range(1, 11)
    for source, label in ((100 + fold, 0), (200 + fold, 1), (300, 1))
    for piece in range(2)
]
ROWS = [row.replace(",300,", ",300,").replace("300-1-0-", f"300-1-{i}-") for i, row in enumerate(ROWS)]


def write(root: Path, table: str = "metadata/UrbanSound8K.csv", audio: str = "audio", rows: list[str] = ROWS) -> Path:
    (root / table).parent.mkdir(parents=True, exist_ok=True)
    (root / table).write_text("\n".join([HEADER, *rows]) + "\n")
    for row in ROWS:
        cells = row.split(",")
        path = root / audio / f"fold{cells[5]}" / cells[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


@pytest.mark.parametrize(
    ("table", "audio"),
    [("metadata/UrbanSound8K.csv", "audio"), ("UrbanSound8K.csv", "audio"), ("UrbanSound8K.csv", "")],
)
@pytest.mark.parametrize("fold", [1, 10])
def test_folds_are_folds_and_classes_come_from_the_table(table: str, audio: str, fold: int, tmp_path: Path) -> None:
    splits = load_splits(write(tmp_path / "UrbanSound8K", table, audio), test_fold=fold)
    assert (splits.name, splits.classes) == (f"UrbanSound8K (test fold {fold})", ("air_conditioner", "car_horn"))
    assert {clip.path.parent.name for clip in splits.test} == {f"fold{fold}"}
    assert {clip.path.parent.name for clip in splits.train} == {f"fold{i}" for i in range(1, 11)} - {f"fold{fold}"}
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (54, 0, 6)
    assert all(clip.path.name.split("-")[1] == str(clip.labels[0]) for clip in splits.train)


def test_validation_keeps_recordings_whole(tmp_path: Path) -> None:
    splits = load_urbansound8k(write(tmp_path), validation=0.2, seed=2)
    assert len(splits.validation) == pytest.approx(11, abs=2)
    assert not {clip.group for clip in splits.train} & {clip.group for clip in splits.validation}


def test_its_audio_alone_points_at_the_folder_above(tmp_path: Path) -> None:
    write(tmp_path / "UrbanSound8K")
    with pytest.raises(DataError, match=r"audio: the folds of UrbanSound8K, whose table is in .*; give that folder$"):
        load_splits(tmp_path / "UrbanSound8K" / "audio")
    with pytest.raises(DataError, match=r"holds no data set, but UrbanSound8K in it has UrbanSound8K's files; give .*"):
        load_splits(tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1-0-0-0.wav,1,0,4,1,one,0,siren", r"line 2: fold 'one'; expected an integer"),
        ("1-0-0-0.wav,1,0,4,1,1,0,siren", r"line 2: no file .*/audio/fold1/1-0-0-0\.wav; unpack the archive again"),
        ("1-0-0-0.wav,1,0,4,1,1,0,", r"line 2: no class; fill it in or delete the line"),
    ],
)
def test_a_wrong_row_is_named(row: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        load_splits(write(tmp_path, rows=[row, *ROWS]))


def test_a_fold_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no fold 11; give a test fold of 1, 2, 3, 4, 5, 6, 7, 8, 9, 10$"):
        load_splits(write(tmp_path), test_fold=11)


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"UrbanSound8K\.csv: no such file; expected UrbanSound8K's layout, metadata/"):
        load_urbansound8k(tmp_path)
