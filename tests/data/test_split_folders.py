"""Folders of splits and folds, which are no classes; and Hugging Face's words for splits."""

from pathlib import Path

import pytest

from fastloaa.data import DataError, load_split_folders, load_splits


def write(root: Path, *names: str, clips: int = 4, labels: tuple[str, ...] = ("cat", "dog")) -> Path:
    """Files without content, `name/label/0.wav` and on; nothing decodes them here."""
    for name in names:
        for label in labels:
            (root / name / label).mkdir(parents=True)
            for i in range(clips):
                (root / name / label / f"{i}.wav").touch()
    return root


def turn(root: Path) -> Path:
    """`train/dog` -> `dog/train`."""
    for path in list(root.glob("*/*")):
        (root / "turned" / path.name).mkdir(parents=True, exist_ok=True)
        path.rename(root / "turned" / path.name / path.parent.name)
    return root / "turned"


def folders_of(splits: object, level: int) -> list[set[str]]:
    return [{clip.path.parts[level] for clip in getattr(splits, split)} for split in ("train", "validation", "test")]


SPLITS = [
    ("train", "validation", "test"),
    ("train", None, "test"),
    ("Train", "Val", "Test"),
    ("TRAIN", "VALID", "TEST"),
    ("training", None, "testing"),
    ("training", "validation", "evaluation"),
    ("train", "dev", "eval"),
    ("train", "valid", "eval"),
    ("train", "dev", "test"),
    ("train", "val", "testing"),
    ("Training", None, "Evaluation"),
]


@pytest.mark.parametrize(("train", "validation", "test"), SPLITS)
@pytest.mark.parametrize("label_first", [False, True])
def test_folders_of_splits_are_no_classes(
    train: str, validation: str | None, test: str, label_first: bool, tmp_path: Path
) -> None:
    root = write(tmp_path / "pets", *filter(None, (train, validation, test)))
    root = turn(root) if label_first else root
    splits = load_splits(root)
    assert splits.classes == ("cat", "dog")
    assert folders_of(splits, -2 if label_first else -3) == [{train}, {validation} if validation else set(), {test}]
    assert all(splits.classes[clip.labels[0]] in clip.path.parts for clip in splits.train + splits.test)
    assert (len(splits.train), len(splits.test)) == (8, 8)
    assert splits == load_split_folders(root)


def test_validation_is_held_out_where_no_folder_is_for_it(tmp_path: Path) -> None:
    root = write(tmp_path / "pets", "train", "test")
    splits = load_splits(root, validation=0.25, seed=1)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (6, 2, 8)
    write(root, "val", clips=1)
    assert folders_of(load_splits(root, validation=0.25), -3) == [{"train"}, {"val"}, {"test"}]


@pytest.mark.parametrize(
    "names",
    [
        [f"fold{i}" for i in range(1, 11)],
        ["fold1", "fold2"],
        ["fold_1", "fold_2", "fold_3"],
        ["fold-1", "fold-2"],
        ["Fold1", "Fold2"],
        ["FOLD 1", "FOLD 2"],
        ["fold01", "fold02"],
        ["fold1", "fold2", "fold30"],
        ["fold_001", "fold_002", "fold_003"],
        ["Fold_1", "Fold_2"],
    ],
)
@pytest.mark.parametrize("label_first", [False, True])
def test_folders_of_folds_are_no_classes(names: list[str], label_first: bool, tmp_path: Path) -> None:
    root = write(tmp_path / "pets", *names, clips=2)
    root = turn(root) if label_first else root
    splits = load_splits(root, test_fold=2)
    assert splits.name == f"{root.name} (test fold 2)"
    assert splits.classes == ("cat", "dog")
    assert folders_of(splits, -2 if label_first else -3) == [set(names) - {names[1]}, set(), {names[1]}]
    held_out = load_splits(root, test_fold=2, validation=0.5)
    assert 0 < len(held_out.validation) < len(splits.train)


@pytest.mark.parametrize(
    "labels",
    [
        ("train", "airplane", "dog"),  # a sound of its own in ESC-50 and AudioSet
        ("train", "tram"),
        ("trains", "tests"),
        ("test tone", "train horn"),
        ("dev", "ops"),
        ("fold", "unfold"),
        ("folder1", "folder2"),
        ("0", "1", "2"),
        ("fold1a", "fold2a"),
        ("fold1", "hiss"),
        ("valley", "evaluate"),
        ("test", "rest"),
    ],
)
def test_classes_with_such_names_stay_classes(labels: tuple[str, ...], tmp_path: Path) -> None:
    assert load_splits(write(tmp_path, ".", labels=labels)).classes == tuple(sorted(labels))


def refused(root: Path) -> str:
    with pytest.raises(DataError) as error:
        load_splits(root)
    assert str(error.value).startswith(f"{root}: ")
    return str(error.value).removeprefix(f"{root}: ")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train"], "the folders are splits, train/, but none with label folders is for test; expected train/label/"),
        (["test"], "the folders are splits, test/, but none with label folders is for train; expected train/label/"),
        (["train", "val"], "the folders are splits, train/, val/, but none with label folders is for test; expected"),
        (["dev", "test"], "the folders are splits, dev/, test/, but none with label folders is for train; expected"),
        (["test", "eval", "train"], "eval/, test/ are both test; rename or join them, or say in a split.csv what"),
        (["train", "Train", "test"], "Train/, train/ are both train; rename or join them"),
        (["train", "test", "noise"], "the folders test/, train/ are splits, but noise/ beside them no split; take"),
        (["train", "val", "extra"], "the folders train/, val/ are splits, but extra/ beside them no split; take"),
        (["fold1", "fold2", "noise"], "the folders fold1/, fold2/ are folds, but noise/ beside them no fold; take"),
        (["fold1"], "only one fold, fold1/; expected two or more: fold1/label/clip.wav, fold2/label/clip.wav, ..."),
        (["fold1", "fold01"], "fold01/, fold1/ are both 1; rename or join them"),
        (["fold2", "fold3"], "no fold 1; give a test fold of 2, 3"),
    ],
)
def test_what_is_amiss_with_splits_is_said(names: list[str], message: str, tmp_path: Path) -> None:
    assert refused(write(tmp_path / "pets", *names)).startswith(message)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ["train/1.wav", "test/2.wav"],
            "test/, train/ are splits, but the clips in them are in no label folders; expected train/label/clip.wav",
        ),
        (
            ["fold1/1-0.wav", "fold2/2-0.wav"],
            "fold1/, fold2/ are folds, but the clips in them are in no label folders; expected fold1/label/clip.wav",
        ),
        (  # Kaggle: what is to be answered has no labels
            ["train/cat/1.wav", "train/dog/2.wav", "test/3.wav"],
            "the folders are splits, test/, train/, but none with label folders is for test",
        ),
        (
            ["train/cat/1.wav", "train/dog/2.wav", "test/cat/3.wav", "test/wolf/4.wav"],
            "classes in test that are not in train: wolf; correct the names",
        ),
        (
            ["data/train/cat/1.wav", "data/test/dog/2.wav"],
            "holds no label folders, but data in it has folders of",
        ),
        (["audio/fold1/a/1.wav", "audio/fold2/b/2.wav"], "holds no label folders, but audio in it has folders of"),
    ],
)
def test_the_layout_that_was_seen_is_named(files: list[str], message: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert refused(tmp_path).startswith(message)


def test_clips_outside_of_label_folders_are_counted(tmp_path: Path) -> None:
    root = write(tmp_path, "train", "test")
    for name in ("loose.wav", "train/loose.wav", "README.md"):
        (root / name).touch()
    assert load_splits(root).left_out == ("sounds outside of label folders: 2 (loose.wav, train/loose.wav)",)
