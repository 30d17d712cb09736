"""Folders of sounds, one per class."""

from collections import Counter
from pathlib import Path

import pytest

from fastloaa.data import Clip, DataError, load_folder
from helpers.tones import write_tone


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ten clips each of two classes."""
    for label in ("dog", "cat"):
        for i in range(10):
            write_tone(tmp_path / "pets" / label / f"{i}.wav")
    return tmp_path / "pets"


def write_split(root: Path, *lines: str) -> Path:
    (root / "split.csv").write_text("\n".join(lines) + "\n")
    return root / "split.csv"


def test_classes_are_folders_and_each_is_split_by_the_fractions(root: Path) -> None:
    splits = load_folder(root, validation=0.1, test=0.2, seed=1)
    assert (splits.name, splits.classes) == ("pets", ("cat", "dog"))
    assert Counter(clip.labels for clip in splits.train) == {(0,): 7, (1,): 7}
    assert Counter(clip.labels for clip in splits.validation) == {(0,): 1, (1,): 1}
    assert Counter(clip.labels for clip in splits.test) == {(0,): 2, (1,): 2}
    for clip in splits.train + splits.validation + splits.test:
        assert clip.path.parent.name == splits.classes[clip.labels[0]]
    assert splits == load_folder(root, validation=0.1, test=0.2, seed=1)
    assert splits != load_folder(root, validation=0.1, test=0.2, seed=2)


def test_both_fractions_are_of_all_clips(root: Path) -> None:
    splits = load_folder(root, validation=0.3, test=0.5)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (4, 6, 10)


def test_validation_can_be_left_out(root: Path) -> None:
    splits = load_folder(root, validation=0.0, test=0.5)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (10, 0, 10)


def test_formats_cases_nested_and_hidden_files(tmp_path: Path) -> None:
    root = tmp_path / "set"
    wanted = {
        write_tone(root / "a" / "one.wav"),
        write_tone(root / "a" / "two.FLAC"),
        write_tone(root / "a" / "deep" / "er" / "three.ogg"),
        write_tone(root / "b" / "four.mp3"),
        write_tone(root / "b" / "five.aiff").rename(root / "b" / "five.Aif"),
        write_tone(root / "b" / "six.au"),
    }
    write_tone(root / "a" / ".hidden.wav")
    write_tone(root / "a" / ".trash" / "old.wav")
    write_tone(root / ".cache" / "x.wav")
    write_tone(root / "loose.wav")
    (root / "a" / "notes.txt").write_text("no sound")
    (root / "papers").mkdir()
    splits = load_folder(root, validation=0.0, test=0.3)
    assert splits.classes == ("a", "b")
    assert {clip.path for clip in splits.train + splits.test} == wanted


def test_a_split_file_decides(root: Path) -> None:
    write_split(
        root,
        "path,split,group",
        "dog/0.wav,train,rex",
        "cat/1.wav,train,",
        "cat/2.wav,validation,tom",
        "dog/3.wav,test,",
    )
    splits = load_folder(root)
    assert splits.train == (Clip(root / "dog" / "0.wav", (1,), "rex"), Clip(root / "cat" / "1.wav", (0,)))
    assert splits.validation == (Clip(root / "cat" / "2.wav", (0,), "tom"),)
    assert splits.test == (Clip(root / "dog" / "3.wav", (1,)),)


def test_a_split_file_needs_no_groups(root: Path) -> None:
    write_split(root, "split,path", "train,dog/0.wav", "train,cat/1.wav", "test,cat/2.wav")
    assert [clip.group for clip in load_folder(root).train] == [None, None]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("dog/99.wav,test", "line 3: no file {root}/dog/99.wav; put it there or delete the line"),
        ("dog/1.wav,dev", "line 3: split 'dev'; expected one of train, validation, test"),
        ("dog.wav,test", "line 3: 'dog.wav' is not in a label folder; expected label/clip.wav"),
        ("../pets/dog/1.wav,test", "line 3: '../pets/dog/1.wav' is not in a label folder; expected label/clip.wav"),
        ("/etc/dog/1.wav,test", "line 3: '/etc/dog/1.wav' is not in a label folder; expected label/clip.wav"),
    ],
)
def test_a_wrong_line_of_the_split_file_is_named(root: Path, line: str, message: str) -> None:
    table = write_split(root, "path,split", "cat/0.wav,train", line)
    with pytest.raises(DataError) as error:
        load_folder(root)
    assert str(error.value) == f"{table} {message.format(root=root)}"


def test_missing_columns_of_the_split_file_are_named(root: Path) -> None:
    write_split(root, "file,split", "cat/0.wav,train")
    with pytest.raises(DataError, match=r"split\.csv: missing columns path; found: file, split; add them"):
        load_folder(root)


def test_a_group_in_two_splits_is_refused(root: Path) -> None:
    write_split(root, "path,split,group", "cat/0.wav,train,tom", "dog/0.wav,train,rex", "cat/1.wav,test,tom")
    with pytest.raises(DataError, match=r"^pets: group 'tom' is in train and, with .*1\.wav, in test"):
        load_folder(root)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone: no such folder; expected one with a folder of sounds per class$"):
        load_folder(tmp_path / "gone")


def test_no_label_folders(tmp_path: Path) -> None:
    write_tone(tmp_path / "loose.wav")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no label folders with sounds; expected .*/label/clip.wav$"):
        load_folder(tmp_path)


def test_one_class_is_not_enough(tmp_path: Path) -> None:
    write_tone(tmp_path / "dog" / "a.wav")
    write_tone(tmp_path / "dog" / "b.wav")
    with pytest.raises(DataError, match=r"only one class, 'dog'; expected a folder of sounds for each of two or more$"):
        load_folder(tmp_path)


@pytest.mark.parametrize(("validation", "test"), [(0.5, 0.5), (0.1, 0.0), (-0.1, 0.2), (0.0, 1.0)])
def test_fractions_that_leave_a_split_empty_are_refused(root: Path, validation: float, test: float) -> None:
    with pytest.raises(DataError, match=r"expected validation >= 0, test > 0 and a sum below 1$"):
        load_folder(root, validation, test)
