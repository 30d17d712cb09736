"""The search for sounds below a folder: hidden files, links, and what is counted because it is left out."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fastloaa.cli.predict import sound_files
from fastloaa.data import DataError, load_folder, load_splits
from fastloaa.data.folder import find_sounds
from fastloaa.data.sounds import LeftOut, folders_below, sounds_below
from helpers.tones import write_tone


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(root: Path) -> tuple[list[str], tuple[str, ...]]:
    left_out = LeftOut()
    sounds = sounds_below(root, left_out)
    return [path.relative_to(root).as_posix() for path in sounds], left_out.lines()


@pytest.mark.parametrize(
    "name",
    [
        "._1.wav",  # macOS, on disks that are not its own
        ".1.wav",
        ".1.wav.swp.wav",
        "..wav",
        ".DS_Store",
        ".Trash-1000/files/1.wav",
        ".Spotlight-V100/1.wav",
        ".git/annex/1.wav",
        ".ipynb_checkpoints/1-checkpoint.wav",
        ".cache/huggingface/1.mp3",
        "__MACOSX/dog/._1.wav",
        "deep/.hidden/er/1.flac",
        "deep/._2.m4a",
    ],
)
def test_what_is_hidden_is_no_sound_for_any_command(name: str, tmp_path: Path) -> None:
    root = tmp_path / ".data" / "set"  # a hidden folder on the way to it does not matter
    touch(root / "dog" / "1.wav", root / "dog" / name)
    assert found(root) == (["dog/1.wav"], ())
    assert find_sounds(root) == {"dog": [root / "dog" / "1.wav"]}
    assert sound_files([str(root)]) == [root / "dog" / "1.wav"]
    assert sound_files([f"{root}/**/*.wav"]) == [root / "dog" / "1.wav"]


def link(at: Path, to: Path) -> None:
    at.parent.mkdir(parents=True, exist_ok=True)
    at.symlink_to(to)


READ_BEFORE = "links to folders that are read by another path"


@pytest.mark.parametrize(
    ("make", "sounds", "lines"),
    [
        (lambda root, disk: link(root / "dog", disk / "dog"), ["dog/1.wav", "dog/2.wav"], ()),
        (lambda root, disk: link(root / "all", disk), ["all/dog/1.wav", "all/dog/2.wav"], ()),
        (lambda root, disk: link(root / "x.wav", disk / "dog" / "1.wav"), ["x.wav"], ()),
        (lambda root, disk: link(root / "x.wav", disk / "dog"), ["x.wav/1.wav", "x.wav/2.wav"], ()),
        (
            lambda root, disk: (link(root / "a", disk / "b"), link(disk / "b", disk / "dog")),
            ["a/1.wav", "a/2.wav"],
            (),
        ),
        (lambda root, disk: link(root / "me", root), [], (f"{READ_BEFORE}: 1 (me)",)),
        (lambda root, disk: link(root / "a" / "b" / "up", root / "a"), [], (f"{READ_BEFORE}: 1 (a/b/up)",)),
        (
            lambda root, disk: (link(root / "a" / "b", root / "c"), link(root / "c" / "d", root / "a")),
            [],
            (f"{READ_BEFORE}: 2 (c/d, a/b)",),
        ),
        (
            lambda root, disk: (link(root / "a", disk / "dog"), link(root / "b", disk / "dog")),
            ["a/1.wav", "a/2.wav"],
            (f"{READ_BEFORE}: 1 (b)",),
        ),
        (
            lambda root, disk: (touch(root / "real" / "1.wav"), link(root / "alias", root / "real")),
            ["real/1.wav"],
            (f"{READ_BEFORE}: 1 (alias)",),
        ),
        (lambda root, disk: link(root / "gone", disk / "unplugged"), [], ("links that lead nowhere: 1 (gone)",)),
        (lambda root, disk: link(root / "a.wav", disk / "gone.wav"), [], ("links that lead nowhere: 1 (a.wav)",)),
        (lambda root, disk: link(root / "a.wav", root / "a.wav"), [], ("links that lead nowhere: 1 (a.wav)",)),
        (
            lambda root, disk: [link(root / f"{i}.wav", disk / "no") for i in range(5)],
            [],
            ("links that lead nowhere: 5 (0.wav, 1.wav, 2.wav, ...)",),
        ),
        (lambda root, disk: os.mkfifo(root / "p.wav"), [], ("devices and pipes named like sounds: 1 (p.wav)",)),
        (lambda root, disk: link(root / ".hidden", disk), [], ()),
    ],
)
def test_links_are_followed_once(
    make: Callable[[Path, Path], object], sounds: list[str], lines: tuple[str, ...], tmp_path: Path
) -> None:
    root, disk = tmp_path / "root", tmp_path / "disk"
    touch(disk / "dog" / "1.wav", disk / "dog" / "2.wav")
    root.mkdir()
    make(root, disk)
    assert found(root) == (sounds, lines)


def test_many_loops_take_no_longer_than_one(tmp_path: Path) -> None:
    """Twelve folders that all lead to each other: 12! ways through them."""
    folders = [tmp_path / f"{i:02}" for i in range(12)]
    for folder in folders:
        touch(folder / "1.wav")
        for other in folders:
            link(folder / f"to{other.name}", other)
    assert [path.parent.name for path in sounds_below(tmp_path, LeftOut())] == [folder.name for folder in folders]
    assert sorted(folders_below(tmp_path)) == [tmp_path, *folders]
    assert sound_files([f"{tmp_path}/**/*.wav"]) == [folder / "1.wav" for folder in folders]
    assert sound_files([f"{tmp_path}/**"]) == [folder / "1.wav" for folder in folders]


def test_a_folder_that_cannot_be_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "dog" / "1.wav", tmp_path / "lost+found" / "2.wav")
    scandir = os.scandir

    def refuse(folder: Path) -> object:
        if Path(folder).name == "lost+found":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert found(tmp_path) == (["dog/1.wav"], ("folders that cannot be opened: 1 (lost+found)",))
    with pytest.raises(PermissionError):
        sounds_below(tmp_path / "lost+found", LeftOut())


@pytest.fixture
def without_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastloaa.audio.formats.formats_installed", lambda: False)


@pytest.fixture
def with_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastloaa.audio.formats.formats_installed", lambda: True)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for label in ("cat", "dog"):
        touch(*(tmp_path / "pets" / label / f"{i}.wav" for i in range(5)))
    return tmp_path / "pets"


FORMATS = ["m4a", "M4A", "aac", "webm", "wma", "mp4", "amr", "3gp", "mkv", "mov", "ac3"]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.usefixtures("without_formats")
def test_a_format_that_needs_the_extra_is_counted(suffix: str, pets: Path) -> None:
    touch(*(pets / "dog" / f"{i}.{suffix}" for i in range(4)))
    splits = load_splits(pets)
    assert len(splits.train + splits.validation + splits.test) == 10
    assert splits.left_out == (
        "sounds in formats that need pip install 'fastloaa[formats]': 4 "
        f"(dog/0.{suffix}, dog/1.{suffix}, dog/2.{suffix}, ...)",
    )
    assert splits.summary().endswith(f"left out: {splits.left_out[0]}")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.usefixtures("without_formats")
def test_a_class_that_would_vanish_is_refused(suffix: str, pets: Path) -> None:
    touch(pets / "cow" / f"moo.{suffix}")
    with pytest.raises(DataError, match=rf"all sounds of 'cow' \(cow/moo\.{suffix}\) are in .*'fastloaa\[formats\]'; "):
        load_splits(pets)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.usefixtures("with_formats")
def test_with_the_extra_it_is_a_class_like_others(suffix: str, pets: Path) -> None:
    touch(*(pets / "cow" / f"{i}.{suffix}" for i in range(5)))
    splits = load_splits(pets)
    assert (splits.classes, splits.left_out) == (("cat", "cow", "dog"), ())


@pytest.mark.usefixtures("without_formats")
def test_predict_says_of_each_file_that_it_needs_the_extra(pets: Path) -> None:
    touch(pets / "dog" / "5.m4a")
    assert pets / "dog" / "5.m4a" in sound_files([str(pets)])


def test_loose_sounds_and_dead_links_are_in_the_summary(pets: Path) -> None:
    touch(pets / "loose.wav", pets / "notes.txt")
    link(pets / "cow", pets / "no such disk")
    assert load_folder(pets).left_out == (
        "links that lead nowhere: 1 (cow)",
        "sounds outside of label folders: 1 (loose.wav)",
    )


def test_audioset_and_epic_sounds_follow_links(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    for name in ("AAAAAAAAAAA", "BBBBBBBBBBB", "P01_01", "P01_02"):
        write_tone(disk / "deep" / f"{name}.wav", seconds=0.2)
    audioset, epic = tmp_path / "audioset", tmp_path / "epic"
    for root in (audioset, epic):
        link(root / "audio", disk)
    for ytid, table in (("AAAAAAAAAAA", "balanced_train_segments.csv"), ("BBBBBBBBBBB", "eval_segments.csv")):
        (audioset / table).write_text(f'{ytid}, 0.000, 10.000, "/m/1,/m/2"\n')
    (audioset / "class_labels_indices.csv").write_text("index,mid,display_name\n0,/m/1,one\n1,/m/2,two\n")
    assert [clip.path for clip in load_splits(audioset).train] == [audioset / "audio" / "deep" / "AAAAAAAAAAA.wav"]
    header = "annotation_id,participant_id,video_id,start_timestamp,stop_timestamp,description,class,class_id"
    for video, table in (("P01_01", "EPIC_Sounds_train.csv"), ("P01_02", "EPIC_Sounds_validation.csv")):
        (epic / table).write_text(f"{header}\n{video}_0,P01,{video},00:00:00.010,00:00:00.100,zip,zip,0\n")
    assert load_splits(epic).train[0].path == epic / "audio" / "deep" / "P01_01.wav"


@pytest.mark.usefixtures("without_formats")
def test_audioset_in_another_format_is_counted(tmp_path: Path) -> None:
    write_tone(tmp_path / "AAAAAAAAAAA.wav")
    write_tone(tmp_path / "BBBBBBBBBBB.wav")
    touch(tmp_path / "CCCCCCCCCCC.m4a", tmp_path / "AAAAAAAAAAA.m4a")
    rows = "".join(f'{letter * 11}, 0.000, 10.000, "/m/1"\n' for letter in "ACD")
    (tmp_path / "balanced_train_segments.csv").write_text(rows)
    (tmp_path / "eval_segments.csv").write_text('BBBBBBBBBBB, 0.000, 10.000, "/m/1"\n')
    (tmp_path / "class_labels_indices.csv").write_text("index,mid,display_name\n0,/m/1,one\n1,/m/2,two\n")
    splits = load_splits(tmp_path)
    assert [clip.path.name for clip in splits.train] == ["AAAAAAAAAAA.wav"]
    assert splits.left_out == (
        "sounds in formats that need pip install 'fastloaa[formats]': 1 (CCCCCCCCCCC.m4a)",
        "clips that are listed but have no file: 1 (DDDDDDDDDDD)",
    )
