"""Splits from a table; those of `split.csv` in label folders are in test_folder.py."""

from pathlib import Path

import pytest

from fastloaa.data import Clip, DataError, load_split_table
from fastloaa.training import Recipe
from helpers.tones import write_tone

SPEAKERS = ("ann", "bob", "cem")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two digits of three speakers, all in one folder, as the Free Spoken Digit Dataset has them."""
    for digit in range(2):
        for speaker in SPEAKERS:
            for take in range(4):
                write_tone(tmp_path / "digits" / "recordings" / f"{digit}_{speaker}_{take}.wav")
    return tmp_path / "digits"


def write_speakers(root: Path, name: str = "speakers.csv") -> Path:
    """A fold for each speaker."""
    lines = [
        f"recordings/{path.name},{path.name[0]},{SPEAKERS.index(path.name.split('_')[1]) + 1}"
        for path in sorted((root / "recordings").iterdir())
    ]
    (root / name).write_text("\n".join(["path,label,fold", *lines]) + "\n")
    return root / name


@pytest.mark.parametrize("fold", [1, 2, 3])
def test_a_fold_for_each_speaker_holds_one_out(root: Path, fold: int) -> None:
    splits = load_split_table(write_speakers(root), test_fold=fold)
    assert (splits.name, splits.classes) == (f"speakers (test fold {fold})", ("0", "1"))
    assert {clip.path.name.split("_")[1] for clip in splits.test} == {SPEAKERS[fold - 1]}
    assert {clip.path.name.split("_")[1] for clip in splits.train} == set(SPEAKERS) - {SPEAKERS[fold - 1]}
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (16, 0, 8)
    for clip in splits.train + splits.test:
        assert splits.classes[clip.labels[0]] == clip.path.name[0]


def test_folds_may_begin_with_0(root: Path) -> None:
    table = write_speakers(root)
    table.write_text(table.read_text().replace(",3\n", ",0\n"))
    assert Recipe(data=str(table), test_fold=0).test_fold == 0
    splits = load_split_table(table, test_fold=0)
    assert ({clip.path.name.split("_")[1] for clip in splits.test}, splits.fold) == ({"cem"}, 0)


def test_validation_comes_from_the_other_folds(root: Path) -> None:
    splits = load_split_table(write_speakers(root), test_fold=2, validation=0.25, seed=3)
    assert [sum(clip.labels == (label,) for clip in splits.validation) for label in range(2)] == [2, 2]
    assert {clip.path.name.split("_")[1] for clip in splits.train + splits.validation} == {"ann", "cem"}
    assert splits != load_split_table(write_speakers(root), test_fold=2, validation=0.25, seed=4)


def test_groups_stay_together_in_validation(root: Path) -> None:
    table = write_speakers(root)
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0] + ",group", *(f"{line},{line.split('_')[1]}" for line in lines[1:])]))
    splits = load_split_table(table, test_fold=1, validation=0.4)
    assert len({clip.group for clip in splits.validation}) == 1
    assert not {clip.group for clip in splits.train} & {clip.group for clip in splits.validation}


def test_labels_and_splits_from_anywhere(root: Path, tmp_path: Path) -> None:
    far = write_tone(tmp_path / "elsewhere" / "x.flac")
    table = tmp_path / "mine" / "split.csv"
    table.parent.mkdir()
    table.write_text(f"path,label,split\n{far},one,test\n../digits/recordings/0_ann_0.wav,nil,train\n")
    splits = load_split_table(table)
    assert (splits.name, splits.classes) == ("mine", ("nil", "one"))
    assert splits.test == (Clip(far, (1,)),)
    assert splits.train[0].path.resolve() == (root / "recordings" / "0_ann_0.wav").resolve()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            "path,label\nrecordings/0_ann_0.wav,0",
            ": expected a column split (train, validation, test) or a column fold,",
        ),
        ("path,split,fold\nrecordings/0_ann_0.wav,test,1", ": expected a column split (train, validation, test) or a"),
        ("path,label,fold\nrecordings/0_ann_0.wav,0,x", " line 2: fold 'x'; expected an integer"),
        ("path,label,fold\nrecordings/0_ann_0.wav,,1", " line 2: no label; fill it in or delete the line"),
        ("path,label,fold\nrecordings/gone.wav,0,1", " line 2: no file {root}/recordings/gone.wav; put it there"),
        ("path,label,fold\nrecordings/0_ann_0.wav,0,1", ": only one class, '0'; expected clips of two or more"),
        (
            "path,label,fold\nrecordings/0_ann_0.wav,0,2\nrecordings/1_ann_0.wav,1,10",
            ": no fold 1; give a test fold of 2, 10",
        ),
    ],
)
def test_what_is_wrong_is_named(root: Path, table: str, message: str) -> None:
    (root / "t.csv").write_text(table)
    with pytest.raises(DataError) as error:
        load_split_table(root / "t.csv")
    assert str(error.value).startswith(f"{root / 't.csv'}{message.format(root=root)}")
