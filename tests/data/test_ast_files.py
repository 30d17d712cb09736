"""AST's data files, as its preparation scripts leave them."""

import json
import os
from pathlib import Path

import pytest

from fastloaa.data import DataError, load_splits

CLASSES = 'index,mid,display_name\n0,/m/07rwj00,"dog"\n1,/m/07rwj01,"rooster"\n'


def write(json_file: Path, ran_in: Path, *wavs: str, make: bool = True) -> None:
    """A JSON file and, unless told otherwise, the files that it lists, relative to `ran_in`; labels take turns."""
    entries = [{"wav": wav, "labels": f"/m/07rwj0{i % 2}"} for i, wav in enumerate(wavs)]
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_text(json.dumps({"data": entries}, indent=1))
    for wav in wavs if make else ():
        (ran_in / wav).parent.mkdir(parents=True, exist_ok=True)
        (ran_in / wav).touch()


@pytest.fixture
def esc50(tmp_path: Path) -> Path:
    """What prep_esc50.py makes in egs/esc50."""
    egs = tmp_path / "egs" / "esc50"
    for fold in (1, 2):
        for kind, folds in (("train", [2, 1][fold - 1 : fold]), ("eval", [fold])):
            wavs = [f"./data/ESC-50-master/audio_16k/{f}-{c}.wav" for f in folds for c in (0, 1)]
            write(egs / "data" / "datafiles" / f"esc_{kind}_data_{fold}.json", egs, *wavs)
    (egs / "data" / "esc_class_labels_indices.csv").write_text(CLASSES)
    return egs


@pytest.mark.parametrize("given", [".", "data", "data/datafiles"])
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("fold", [1, 2])
def test_esc50_is_read_from_any_of_its_folders(
    given: str, inside: bool, fold: int, esc50: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if inside:
        monkeypatch.chdir(esc50 / given)
    for path in [*esc50.rglob("*.json"), *esc50.rglob("*.csv")]:  # as macOS leaves
        (path.parent / f"._{path.name}").write_bytes(b"\0\5\26\7\xff")
    splits = load_splits("." if inside else esc50 / given, test_fold=fold)
    assert (splits.classes, splits.fold) == (("dog", "rooster"), fold)
    assert [(clip.path.name, clip.labels) for clip in splits.train] == [
        (f"{3 - fold}-0.wav", (0,)),
        (f"{3 - fold}-1.wav", (1,)),
    ]
    assert [(clip.path.name, clip.labels) for clip in splits.test] == [(f"{fold}-0.wav", (0,)), (f"{fold}-1.wav", (1,))]
    assert all(clip.path.is_file() for clip in splits.train + splits.test)


def test_speech_commands_have_validation_files(tmp_path: Path) -> None:
    """What prep_sc.py makes in egs/speechcommands; each list has two files."""
    egs = tmp_path / "speechcommands"
    for kind in ("train", "valid", "eval"):
        wavs = [f"./data/speech_commands_v0.02/{word}/{kind}.wav" for word in ("dog", "rooster")]
        write(egs / "data" / "datafiles" / f"speechcommand_{kind}_data.json", egs, *wavs)
    (egs / "data" / "speechcommands_class_labels_indices.csv").write_text(CLASSES)
    splits = load_splits(egs)
    assert [[clip.path.name for clip in clips] for clips in (splits.train, splits.validation, splits.test)] == [
        ["train.wav"] * 2,
        ["valid.wav"] * 2,
        ["eval.wav"] * 2,
    ]
    with pytest.raises(DataError, match=r"has a \*valid\*\.json of its own; leave validation=0\.1 out"):
        load_splits(egs, validation=0.1)


@pytest.mark.parametrize(
    ("root", "files", "table", "ran_in"),
    [
        ("set", "set", "set", "set"),  # all in one folder
        ("set", "set/datafiles", "set/datafiles", "set/datafiles"),
        ("set", "set/datafiles", "set", "set"),
        ("set", "set/data/datafiles", "set/data", "set/data"),
        ("set", "set/data/datafiles", "set/data/datafiles", "set"),
        ("set/datafiles", "set/datafiles", "set", "set/datafiles"),
        ("set/datafiles", "set/datafiles", "set", "set"),
        ("set/datafiles", "set/datafiles", "set", "."),
        ("a/set/datafiles", "a/set/datafiles", "a/set", "."),
        ("set/lists", "set/lists", "set/lists", "set"),
    ],
)
def test_relative_paths_start_where_the_files_are(
    root: str, files: str, table: str, ran_in: str, tmp_path: Path
) -> None:
    for kind in ("train", "eval"):
        write(
            tmp_path / files / f"my_{kind}_data.json", tmp_path / ran_in, f"./wavs/{kind}/0.wav", f"wavs/{kind}/1.wav"
        )
    (tmp_path / table / "class_labels_indices.csv").write_text(CLASSES)
    splits = load_splits(tmp_path / root)
    for clips, kind in ((splits.train, "train"), (splits.test, "eval")):
        found = [clip.path.resolve() for clip in clips]
        assert found == [(tmp_path / ran_in / "wavs" / kind / f"{i}.wav").resolve() for i in (0, 1)]


def test_the_nearest_folder_counts(tmp_path: Path) -> None:
    """The same relative path exists beside the JSON files and above them."""
    for kind in ("train", "eval"):
        write(tmp_path / "datafiles" / f"{kind}.json", tmp_path, f"{kind}/0.wav", f"{kind}/1.wav")
        write(tmp_path / "datafiles" / f"{kind}.json", tmp_path / "datafiles", f"{kind}/0.wav", f"{kind}/1.wav")
    (tmp_path / "class_labels_indices.csv").write_text(CLASSES)
    assert load_splits(tmp_path).train[0].path == tmp_path / "datafiles" / "train" / "0.wav"


def test_names_that_are_not_utf8_are_found(tmp_path: Path) -> None:
    """json.dump writes such a byte as half a surrogate pair."""
    odd = os.fsdecode(b"caf\xe9.wav")
    for kind in ("train", "eval"):
        write(tmp_path / f"{kind}.json", tmp_path, f"{kind}/0.wav", f"{kind}/{odd}")
    (tmp_path / "class_labels_indices.csv").write_text(CLASSES)
    assert os.fsencode(load_splits(tmp_path).test[1].path).endswith(b"eval/caf\xe9.wav")


def test_a_file_that_is_nowhere_is_named(esc50: Path) -> None:
    (esc50 / "data" / "ESC-50-master" / "audio_16k" / "2-1.wav").unlink()
    with pytest.raises(DataError, match=r"esc_train_data_1\.json entry 1: no file .*audio_16k/2-1\.wav; put it there"):
        load_splits(esc50)


def test_a_data_set_that_was_moved_away_from_its_lists(tmp_path: Path) -> None:
    write(tmp_path / "train.json", tmp_path, "gone/0.wav", make=False)
    write(tmp_path / "eval.json", tmp_path, "here/0.wav")
    (tmp_path / "class_labels_indices.csv").write_text(CLASSES)
    with pytest.raises(DataError, match=rf"train\.json entry 0: no file {tmp_path}/gone/0\.wav; put it"):
        load_splits(tmp_path)


def test_a_code_of_two_classes_is_refused(esc50: Path) -> None:
    (esc50 / "data" / "esc_class_labels_indices.csv").write_text(CLASSES.replace("07rwj01", "07rwj00"))
    with pytest.raises(DataError, match=r"line 3: mid '/m/07rwj00' is that of another class; correct one$"):
        load_splits(esc50)
