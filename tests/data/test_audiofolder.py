"""Hugging Face's audiofolder with metadata."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from fastloaa.data import AudioSplits, DataError, load_splits

Row = dict[str, object]


def write_csv(file: Path, rows: Sequence[Row]) -> None:
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    file.write_text("\n".join(lines) + "\n")


def write_jsonl(file: Path, rows: Sequence[Row]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


WRITERS = [("metadata.csv", write_csv), ("metadata.jsonl", write_jsonl)]


def names(splits: AudioSplits) -> list[list[tuple[str, ...]]]:
    return [
        sorted((clip.path.name, *(splits.classes[label] for label in clip.labels)) for clip in clips)
        for clips in (splits.train, splits.validation, splits.test)
    ]


@pytest.mark.parametrize(("name", "write"), WRITERS)
@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [("train", "validation", "test"), ("train", "dev", "eval"), ("data/train", "data/val", "data/test")],
)
def test_one_file_of_metadata_above_folders_of_splits(
    name: str, write: object, train: str, validation: str, test: str, tmp_path: Path
) -> None:
    paths = [f"{train}/1.wav", f"{train}/2.wav", f"{validation}/3.wav", f"{test}/4.wav"]
    root = touch(tmp_path, *paths)
    write(root / name, [{"file_name": path, "label": "cat" if "1" in path else "dog"} for path in paths])
    splits = load_splits(root)
    assert (splits.name, splits.classes) == (tmp_path.name, ("cat", "dog"))
    assert names(splits) == [[("1.wav", "cat"), ("2.wav", "dog")], [("3.wav", "dog")], [("4.wav", "dog")]]


@pytest.mark.parametrize(("name", "write"), WRITERS)
def test_metadata_in_each_split(name: str, write: object, tmp_path: Path) -> None:
    root = touch(tmp_path, "train/1.wav", "train/sub/2.wav", "test/3.wav", "test/unlisted.wav")
    write(root / "train" / name, [{"file_name": "1.wav", "label": "a"}, {"file_name": "sub/2.wav", "label": "b"}])
    write(root / "test" / name, [{"file_name": "3.wav", "label": "b"}])
    splits = load_splits(root)
    assert names(splits) == [[("1.wav", "a"), ("2.wav", "b")], [], [("3.wav", "b")]]
    assert splits.left_out == ("sounds that the metadata does not list: 1 (test/unlisted.wav)",)


@pytest.mark.parametrize(("name", "write"), WRITERS)
def test_a_column_of_splits_decides(name: str, write: object, tmp_path: Path) -> None:
    root = touch(tmp_path, *(f"data/{i}.wav" for i in range(3)))
    rows = [
        {"file_name": f"data/{i}.wav", "label": "xy"[i % 2], "split": split}
        for i, split in enumerate(("train", "valid", "TEST"))
    ]
    write(root / name, rows)
    assert names(load_splits(root)) == [[("0.wav", "x")], [("1.wav", "y")], [("2.wav", "x")]]


@pytest.mark.parametrize(("name", "write"), WRITERS)
def test_without_splits_every_class_is_divided(name: str, write: object, tmp_path: Path) -> None:
    root = touch(tmp_path, *(f"data/{i}.wav" for i in range(20)))
    write(root / name, [{"file_name": f"data/{i}.wav", "label": i % 2} for i in range(20)])
    splits = load_splits(root)
    assert splits.classes == ("0", "1")  # numbers are names of classes
    assert [len(clips) for clips in (splits.train, splits.validation, splits.test)] == [14, 2, 4]
    assert len(load_splits(root, validation=0.4).validation) == 8


def test_several_labels_are_a_list_in_json(tmp_path: Path) -> None:
    root = touch(tmp_path, "train/1.wav", "test/2.wav")
    rows = [{"file_name": "train/1.wav", "labels": ["dog", "rain"]}, {"file_name": "test/2.wav", "labels": ["rain"]}]
    write_jsonl(root / "metadata.jsonl", rows)
    splits = load_splits(root)
    assert splits.multi_label
    assert splits.train[0].labels == (0, 1)


def test_other_columns_of_file_names_and_absolute_paths(tmp_path: Path) -> None:
    far = touch(tmp_path / "far", "2.wav") / "2.wav"
    root = touch(tmp_path / "set", "1.wav")
    rows = [{"audio_file_name": "1.wav", "label": "a", "split": "train"}]
    rows.append({"audio_file_name": str(far), "label": "b", "split": "test"})
    write_jsonl(root / "metadata.jsonl", rows)
    assert load_splits(root).test[0].path == far


def test_a_metadata_csv_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    root = touch(tmp_path, *(f"{label}/{i}.wav" for label in "ab" for i in range(5)))
    (root / "metadata.csv").write_bytes(b"Aufnahme;Ger\xe4t\n1;Zoom\n")
    assert load_splits(root).classes == ("a", "b")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metadata.csv", "file_name,text\n1.wav,hello\n", " line 2: no column label; found: file_name, text; add one"),
        ("metadata.csv", "file_name,label\n1.wav,\n", " line 2: label ''; expected the name of a class, or a list"),
        ("metadata.csv", "file_name,label\n,dog\n", " line 2: no file_name; fill it in or delete the line"),
        ("metadata.csv", "file_name,label\ngone.wav,dog\n", " line 2: no file {root}/gone.wav; put it there or delete"),
        ("metadata.csv", "file_name,label,split\n1.wav,dog,train2\n", " line 2: split 'train2'; expected train, valid"),
        ("metadata.csv", "file_name,label\n", ": no rows below the header; expected one per clip"),
        ("metadata.csv", "file_name,label,label\n1.wav,a,b\n", ": two columns are named label; rename one"),
        ("metadata.jsonl", '{"file_name": "1.wav", "label": null}\n', " line 1: label None; expected the name of a"),
        ("metadata.jsonl", '{"file_name": "1.wav", "label": []}\n', " line 1: label []; expected the name of a class"),
        ("metadata.jsonl", '{"file_name": "1.wav", "label": {"a": 1}}\n', " line 1: label {'a': 1}; expected the name"),
        ("metadata.jsonl", '{"file_name": 7, "label": "a"}\n', " line 1: no file_name; fill it in or delete the line"),
        ("metadata.jsonl", '{"file_name": "1.wav",\n', " line 1: not JSON ("),
        ("metadata.jsonl", '["file_name"]\n', " line 1: expected an object such as"),
        ("metadata.jsonl", '{"file_name": ' + "[" * 100_000, " line 1: not JSON ("),
    ],
)
def test_wrong_metadata_is_named(name: str, text: str, message: str, tmp_path: Path) -> None:
    root = touch(tmp_path, "1.wav")
    (root / name).write_text(text)
    with pytest.raises(DataError) as error:
        load_splits(root)
    assert str(error.value).startswith(f"{root / name}{message.replace('{root}', str(root))}")


def test_clips_in_no_split_beside_some_that_are_in_one(tmp_path: Path) -> None:
    root = touch(tmp_path, "train/1.wav", "2.wav")
    write_csv(root / "metadata.csv", [{"file_name": "train/1.wav", "label": "a"}, {"file_name": "2.wav", "label": "b"}])
    with pytest.raises(DataError, match=r"some clips are in a split and .*/2\.wav is in none; expected train,"):
        load_splits(root)


def test_parquet_is_not_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "train/metadata.parquet", "train/1.wav", "test/2.wav")
    with pytest.raises(DataError, match=r"train/metadata\.parquet: not read; save it as metadata\.csv or metadata\.j"):
        load_splits(tmp_path)
