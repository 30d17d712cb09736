"""File names of any bytes, from the folder or the table to the batch and its messages."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.console import Console

from fastloaa.audio import AudioError, load_audio
from fastloaa.data import Clip, ClipDataset, DataError, clip_seconds, collate, load_split_table, load_splits
from helpers.tones import write_tone

NAMES = [
    b"caf\xe9",  # Latin-1
    b"na\xefve \xa9",
    "café".encode("cp850"),
    "猫".encode("shift_jis"),
    "犬".encode("euc_jp"),
    "고양이".encode("euc_kr"),
    "кошка".encode("koi8_r"),
    "кошка".encode("cp1251"),
    "玻璃".encode("gb18030"),
    b"\xff\xfe\xfd",
    b"\xc3",
    "🎉".encode()[:-1],
    "録音データ第一号".encode(),
    "👩‍👩‍👧 é".encode(),
    b"two\nlines\x1b[31m",
]


def write(path: Path, broken: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = io.BytesIO()
    soundfile.write(sound, np.linspace(-0.5, 0.5, 800), 16000, format="WAV")
    path.write_bytes(b"no sound" if broken else sound.getvalue())
    return path


@pytest.mark.parametrize("name", NAMES)
def test_files_and_folders_of_any_name_are_read(name: bytes, tmp_path: Path) -> None:
    stem = os.fsdecode(name)
    for label in (f"{stem}1", f"{stem}2"):
        for i in range(2):
            write(tmp_path / "set" / label / f"{stem}{i}.wav")
    broken = write(tmp_path / "set" / f"{stem}1" / f"{stem}2.wav", broken=True)
    splits = load_splits(tmp_path / "set", validation=0.0)
    clips = splits.train + splits.test
    ends = (b"0.wav", b"0.wav", b"1.wav", b"1.wav", b"2.wav")
    assert sorted(os.fsencode(clip.path.name) for clip in clips) == [name + end for end in ends]
    assert len(splits.classes) == 2
    dataset = ClipDataset(clips, 16000, 2)
    batch = collate([dataset[i] for i in range(5)])
    assert (batch.waveform.shape, len(batch.broken)) == ((4, 800), 1)
    for text in (*splits.classes, *batch.paths, *batch.broken, *map(str, clips), splits.summary()):
        text.encode()  # can be printed, written and put into a model's metadata
    whole = next(clip for clip in clips if clip.path != broken)
    assert (clip_seconds(whole), len(load_audio(whole.path))) == (0.05, 800)
    for read in (load_audio, lambda path: clip_seconds(Clip(path, (0,)))):
        with pytest.raises(AudioError) as error:
            read(broken)
        str(error.value).encode()


@pytest.mark.parametrize("name", NAMES[:-1])
@pytest.mark.parametrize("column", ["split", "fold"])
def test_a_table_names_files_by_their_bytes(name: bytes, column: str, tmp_path: Path) -> None:
    for i in range(2):
        write(tmp_path / "sounds" / os.fsdecode(name + b"%d.wav" % i))
    parts = {"split": (b"test", b"train"), "fold": (b"1", b"2")}[column]
    rows = [b'"sounds/%s%d.wav",%d,%s' % (name, i, i, part) for i, part in enumerate(parts)]
    table = tmp_path / "any.csv"
    table.write_bytes(b"\n".join([b"path,label," + column.encode(), *rows]))
    splits = load_split_table(table)
    assert [os.fsencode(clip.path.name) for clip in splits.test + splits.train] == [name + b"0.wav", name + b"1.wav"]


@pytest.mark.parametrize("name", NAMES[:-1])
def test_labels_of_a_table_must_be_utf8(name: bytes, tmp_path: Path) -> None:
    write_tone(tmp_path / "0.wav")
    write_tone(tmp_path / "1.wav")
    (tmp_path / "split.csv").write_bytes(b"path,label,split\n0.wav,%s,train\n1.wav,other,test\n" % name)
    try:
        expected = name.decode()
    except UnicodeDecodeError:
        with pytest.raises(DataError, match=r"split\.csv line 2: label is not UTF-8 text; save the table as UTF-8$"):
            load_splits(tmp_path)
    else:
        assert expected in load_splits(tmp_path).classes


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_a_table_in_another_encoding_is_refused(encoding: str, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("path,label,split\n0.wav,a,train\n", encoding=encoding)
    with pytest.raises(DataError, match=r"not a CSV file in UTF-8|missing columns path"):
        load_split_table(table)


def test_a_summary_can_be_shown_and_kept(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"donn\xe9es")
    for label in ("a", "b"):
        for i in range(3):
            write_tone(tmp_path / "plain" / label / f"{i}.wav")
    write_tone(tmp_path / "plain" / "loose.wav").rename(tmp_path / "plain" / os.fsdecode(b"l\xe2che.wav"))
    (tmp_path / "plain").rename(root)
    splits = load_splits(root)
    assert splits.name == r"donn\xe9es"
    assert splits.left_out == (r"sounds outside of label folders: 1 (l\xe2che.wav)",)
    with (tmp_path / "log.txt").open("w", encoding="utf-8") as log:
        Console(file=log, width=500).print(splits.summary(), markup=False)
    assert (tmp_path / "log.txt").read_text(encoding="utf-8").strip() == splits.summary()
    assert json.loads(json.dumps(str(splits.train[0].path))) == str(splits.train[0].path)
