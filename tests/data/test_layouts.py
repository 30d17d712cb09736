"""Which layout a folder has."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fastloaa.data import (
    DataError,
    load_audioset,
    load_epic_sounds,
    load_esc50,
    load_folder,
    load_speech_commands,
    load_split_table,
    load_splits,
)
from helpers.tones import write_esc50, write_tone

ESC50_ROWS = [f"{fold}-{i}.wav,{fold},{i % 2},c{i % 2},True,{fold}{i},A" for fold in range(1, 6) for i in range(4)]


def write_speech_commands(root: Path) -> Path:
    for name in ("yes/a_nohash_0.wav", "no/b_nohash_0.wav", "no/c_nohash_0.wav", "_background_noise_/x.wav"):
        write_tone(root / name)
    (root / "validation_list.txt").write_text("no/b_nohash_0.wav\n")
    (root / "testing_list.txt").write_text("no/c_nohash_0.wav\n")
    return root


def write_epic_sounds(root: Path) -> Path:
    for video, table in (("P01_01", "EPIC_Sounds_train.csv"), ("P01_02", "EPIC_Sounds_validation.csv")):
        write_tone(root / f"{video}.wav")
        header = "annotation_id,participant_id,video_id,start_timestamp,stop_timestamp,description,class,class_id"
        (root / table).write_text(f"{header}\n{video}_0,P01,{video},00:00:00.010,00:00:00.030,zip,zip,0\n")
    return root


def write_audioset(root: Path) -> Path:
    for ytid, table in (("AAAAAAAAAAA", "balanced_train_segments.csv"), ("BBBBBBBBBBB", "eval_segments.csv")):
        write_tone(root / "audio" / f"{ytid}.wav")
        (root / table).write_text(f'# YTID, ...\n{ytid}, 0.000, 10.000, "/m/1,/m/2"\n')
    (root / "class_labels_indices.csv").write_text("index,mid,display_name\n0,/m/1,one\n1,/m/2,two\n")
    return root


def test_esc50_is_known_by_its_table(tmp_path: Path) -> None:
    root = write_esc50(tmp_path / "esc", ESC50_ROWS)
    assert load_splits(root, test_fold=4) == load_esc50(root, 4)
    assert load_splits(root, test_fold=4).fold == 4
    assert load_splits(root, test_fold=4, validation=0.25, seed=3) == load_esc50(root, 4, 0.25, 3)


@pytest.mark.parametrize(
    ("write", "load"),
    [
        (write_speech_commands, load_speech_commands),
        (write_epic_sounds, load_epic_sounds),
        (write_audioset, load_audioset),
    ],
)
def test_official_layouts_are_known_by_their_files(write: Callable, load: Callable, tmp_path: Path) -> None:
    root = write(tmp_path / "set")
    splits = load_splits(root)
    assert splits == load(root)
    assert splits.fold is None
    for path in list(root.iterdir()):  # what macOS leaves beside every file on a disk of another system
        (root / f"._{path.name}").write_bytes(b"\0\5\26\7\xff")
    (root / "._EPIC_audio.hdf5").touch()
    assert load_splits(root) == splits


@pytest.mark.parametrize(
    ("write", "gone"),
    [
        (write_speech_commands, "testing_list.txt"),
        (write_speech_commands, "validation_list.txt"),
        (write_epic_sounds, "EPIC_Sounds_train.csv"),
        (write_epic_sounds, "EPIC_Sounds_validation.csv"),
        (write_audioset, "class_labels_indices.csv"),
        (write_audioset, "eval_segments.csv"),
    ],
)
def test_the_missing_file_of_the_nearest_layout_is_named(write: Callable, gone: str, tmp_path: Path) -> None:
    root = write(tmp_path / "set")
    (root / gone).unlink()
    with pytest.raises(DataError, match=rf"{gone.replace('.', '[.]')}(: no such file)?; expected .+'s? layout, "):
        load_splits(root)


def test_speech_commands_has_a_validation_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Speech Commands has validation clips; leave validation=0\.1 out$"):
        load_splits(write_speech_commands(tmp_path), validation=0.1)


def test_folders_are_the_layout_of_everything_else(tmp_path: Path) -> None:
    for label in ("a", "b"):
        for i in range(10):
            write_tone(tmp_path / label / f"{i}.wav")
    assert load_splits(tmp_path) == load_folder(tmp_path)
    assert load_splits(str(tmp_path), validation=0.3, seed=2) == load_folder(tmp_path, validation=0.3, seed=2)


def test_a_table_is_known_by_its_name_in_a_folder_or_given_itself(tmp_path: Path) -> None:
    lines = [f"{write_tone(tmp_path / f'{i}.wav').name},{i % 2},{i // 4 + 1}" for i in range(12)]
    for name in ("split.csv", "other.csv"):
        (tmp_path / name).write_text("\n".join(["path,label,fold", *lines]))
    assert load_splits(tmp_path, test_fold=2) == load_split_table(tmp_path / "split.csv", 2)
    found = load_splits(tmp_path / "other.csv", test_fold=3, validation=0.25, seed=5)
    assert found == load_split_table(tmp_path / "other.csv", 3, 0.25, 5)
    assert len(found.validation) == 2


def message(path: Path) -> str:
    with pytest.raises(DataError) as error:
        load_splits(path)
    return str(error.value)


def test_what_was_found_is_said(tmp_path: Path) -> None:
    expected = (
        "; expected a folder of sounds per class (label/clip.wav), in folders of splits or folds if it has them, or "
        "the official layout of one of ESC-50, UrbanSound8K, Speech Commands, EPIC-SOUNDS, AudioSet, AST, audiofolder"
    )
    assert message(tmp_path) == f"{tmp_path}: an empty folder{expected}"
    assert message(tmp_path / "gone") == f"{tmp_path / 'gone'}: no such folder{expected}"
    tone = write_tone(tmp_path / "a.wav")
    assert message(tone) == f"{tone}: a file, not a folder{expected}"
    (tmp_path / "docs").mkdir()
    assert message(tmp_path) == f"{tmp_path}: holds a.wav, docs/{expected}"
    for i in range(5):
        write_tone(tmp_path / f"b{i}.wav")
    assert message(tmp_path) == f"{tmp_path}: holds a.wav, b0.wav, b1.wav, b2.wav, b3.wav and 2 more{expected}"


def test_a_data_set_one_folder_below_is_pointed_at(tmp_path: Path) -> None:
    root = write_esc50(tmp_path / "ESC-50-master", ESC50_ROWS)
    assert (
        message(tmp_path) == f"{tmp_path}: holds no data set, but ESC-50-master in it has ESC-50's files; give {root}"
    )


def test_audio_without_its_table_is_no_class(tmp_path: Path) -> None:
    root = write_esc50(tmp_path / "esc", ESC50_ROWS)
    (root / "meta" / "esc50.csv").unlink()
    assert message(root) == (
        f"{root}: audio/ without a table; expected ESC-50's layout, meta/esc50.csv and audio/, or another's table"
    )
