"""EPIC-SOUNDS' layout: its tables, and sound in an HDF5 file, in files per video or in files per annotation."""

import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile

from fastloaa.audio import AudioError
from fastloaa.data import Clip, DataError, load_epic_sounds, read_clip
from fastloaa.extras import MissingPackageError

HEADER = (
    "annotation_id,participant_id,video_id,start_timestamp,stop_timestamp,start_sample,stop_sample,"
    "description,class,class_id"
)
# Numbers with gaps, a comma in a description, and a segment that was annotated twice, as P32_01 has one.
TRAIN = [
    "P01_01_0,P01,P01_01,00:00:00.100,00:00:00.350,2400,8400,paper rustle,rustle,4",
    "P01_01_1,P01,P01_01,00:00:00.250,00:00:00.500,6000,12000,tap running,water,5",
    "P02_07_0,P02,P02_07,00:00:00.000,00:00:00.400,0,9600,clang / clatter,metal-only collision,0",
    'P02_07_1,P02,P02_07,00:00:00.000,00:00:00.400,0,9600,"clang, again",water,5',
]
VALIDATION = ["P03_02_0,P03,P03_02,00:01:00.001,00:01:00.201,1440024,1444824,zip,zip,42"]
SECONDS = {"P01_01": 0.6, "P02_07": 0.4, "P03_02": 60.3}


def sound(video: str) -> np.ndarray:
    """24 kHz, float32; every sample of every video differs."""
    noise = np.random.default_rng(sorted(SECONDS).index(video)).uniform(-0.9, 0.9, round(24000 * SECONDS[video]))
    return noise.astype(np.float32)


def write_hdf5(root: Path) -> None:
    with h5py.File(root / "EPIC_audio.hdf5", "w") as file:
        for video in SECONDS:
            file.create_dataset(video, data=sound(video))


def write_videos(root: Path) -> None:
    (root / "audio" / "P01").mkdir(parents=True)
    for video in SECONDS:
        soundfile.write(root / "audio" / "P01" / f"{video}.wav", sound(video), 24000, "FLOAT")


def write_cuts(root: Path) -> None:
    (root / "audio").mkdir()
    for row in TRAIN + VALIDATION:
        annotation, _, video, _, _, first, end, *_ = row.split(",")
        cut = sound(video)[int(first) : int(end)]
        soundfile.write(root / "audio" / f"{annotation}.wav", cut, 24000, "FLOAT")


def write_tables(root: Path, train: list[str] = TRAIN, validation: list[str] = VALIDATION) -> Path:
    root.mkdir(exist_ok=True)
    (root / "EPIC_Sounds_train.csv").write_text("\n".join([HEADER, *train]) + "\n")
    (root / "EPIC_Sounds_validation.csv").write_text("\n".join([HEADER, *validation]) + "\n")
    return root


@pytest.mark.parametrize("write_sound", [write_hdf5, write_videos, write_cuts])
def test_segments_hold_their_samples_wherever_the_sound_is(write_sound: Callable, tmp_path: Path) -> None:
    root = write_tables(tmp_path / "epic")
    write_sound(root)
    splits = load_epic_sounds(root)
    assert (splits.name, splits.validation) == ("epic", ())
    assert splits.classes == ("metal-only collision", "rustle", "water", "zip")
    assert [clip.labels for clip in splits.train] == [(1,), (2,), (0,), (2,)]
    assert [clip.labels for clip in splits.test] == [(3,)]
    assert [clip.group for clip in splits.train] == ["P01_01", "P01_01", "P02_07", "P02_07"]
    for clip, row in zip(splits.train + splits.test, TRAIN + VALIDATION, strict=True):
        _, _, video, _, _, first, end, *_ = row.split(",")
        np.testing.assert_array_equal(read_clip(clip, 24000), sound(video)[int(first) : int(end)])


def test_clips_say_where_they_are(tmp_path: Path) -> None:
    root = write_tables(tmp_path)
    write_hdf5(root)
    clip = load_epic_sounds(root).test[0]
    assert clip == Clip(root / "EPIC_audio.hdf5", (3,), "P03_02", 60.001, 60.201, "P03_02")
    assert str(clip) == f"{root / 'EPIC_audio.hdf5'}[P03_02] 60.001-60.201 s"


def test_validation_keeps_videos_whole(tmp_path: Path) -> None:
    train = [f"P01_{v}_{i},P01,P01_{v},00:00:00.{i}00,00:00:00.{i}50,0,0,x,water,5" for v in range(6) for i in range(5)]
    root = write_tables(tmp_path, train)
    with h5py.File(root / "sound.h5", "w") as file:
        for video in ("P03_02", *(f"P01_{v}" for v in range(6))):
            file[video] = np.zeros(24000, dtype=np.float32)
    splits = load_epic_sounds(root, validation=0.3, seed=2)
    assert len(splits.validation) == 10
    assert not {clip.group for clip in splits.train} & {clip.group for clip in splits.validation}
    assert splits != load_epic_sounds(root, validation=0.3, seed=3)


@pytest.mark.parametrize("name", ["EPIC_Sounds_train.csv", "EPIC_Sounds_validation.csv"])
def test_a_missing_table_is_named_with_the_layout(tmp_path: Path, name: str) -> None:
    (write_tables(tmp_path) / name).unlink()
    with pytest.raises(DataError, match=rf"{name}: no such file; expected EPIC-SOUNDS' layout, .*EPIC_audio\.hdf5, "):
        load_epic_sounds(tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("P01_01_9,P01,P01_01,00:00:00.1,00:00:inf,0,0,x,water,5", "time '00:00:inf'; expected HH:MM:SS.mmm"),
        ("P01_01_9,P01,P01_01,00:00:nan,00:00:00.3,0,0,x,water,5", "time '00:00:nan'; expected HH:MM:SS.mmm"),
        (
            f"P01_01_9,P01,P01_01,{'9' * 400}:00:00,00:00:00.3,0,0,x,water,5",
            f"time '{'9' * 400}:00:00'; expected HH:MM:SS.mmm",
        ),
        ("P01_01_9,P01,P01_01,0:1,00:00:00.350,0,0,x,water,5", "time '0:1'; expected HH:MM:SS.mmm"),
        (
            "P01_01_9,P01,P01_01,00:00:00.350,00:00:00.350,0,0,x,water,5",
            "stops at 00:00:00.350, before it starts; correct the times",
        ),
        ("P01_01_9,P01,P01_01,00:00:00.1,00:00:00.3,0,0,x,water,five", "class_id 'five'; expected an integer"),
        (
            "P01_01_9,P01,P01_01,00:00:00.1,00:00:00.3,0,0,x,fire,5",
            "class_id 5 is 'fire' here and 'water' above; correct one",
        ),
        (
            "P09_01_0,P09,P09_01,00:00:00.1,00:00:00.3,0,0,x,water,5",
            "no sound of video P09_01 in {root}; expected it in an HDF5 file, as P09_01.wav or as P09_01_0.wav",
        ),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: str, message: str) -> None:
    root = write_tables(tmp_path, [*TRAIN, row])
    write_videos(root)
    with pytest.raises(DataError) as error:
        load_epic_sounds(root)
    assert str(error.value) == f"{root / 'EPIC_Sounds_train.csv'} line 6: {message.format(root=root)}"


def test_two_hdf5_files_are_refused(tmp_path: Path) -> None:
    write_hdf5(write_tables(tmp_path))
    (tmp_path / "features.h5").touch()
    with pytest.raises(DataError, match=r"two HDF5 files, EPIC_audio\.hdf5 and features\.h5; leave one here$"):
        load_epic_sounds(tmp_path)


def test_without_h5py_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_hdf5(write_tables(tmp_path))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingPackageError, match=r"^h5py is not installed; pip install 'fastloaa\[hdf5\]'$"):
        load_epic_sounds(tmp_path)


def test_what_is_no_hdf5_is_named(tmp_path: Path) -> None:
    (write_tables(tmp_path) / "EPIC_audio.hdf5").write_text("not that")
    with pytest.raises(AudioError, match=r"EPIC_audio\.hdf5: not an HDF5 file, or a damaged one; copy it again$"):
        load_epic_sounds(tmp_path)
