"""Damaged tables and lists: whatever is in them, a reader answers with splits or with DataError."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from fastloaa.data import DataError, load_splits

CASES = 80  # of each table and kind of change; a few seconds in all

SPLIT = (
    b"path,label,split,group\na/0.wav,dog,train,g1\nb/1.wav,cat,train,\n"
    b'"c, d.wav",dog,validation,\na/2.wav,cat,test,g2\n'
)
FOLD = b"path,label,fold\na/0.wav,dog,1\nb/1.wav,cat,2\na/2.wav,cat,1\n"
CLASSES = b'index,mid,display_name\n0,/m/1,"dog"\n1,/m/2,"cat, tabby"\n'
SEGMENTS = (
    b'# YTID, start_seconds, end_seconds, positive_labels\na0, 0.000, 10.000, "/m/1,/m/2"\nb1, 30.000, 40.000, "/m/2"\n'
)
AST = b'{"data": [{"wav": "a/0.wav", "labels": "/m/1,/m/2"}, {"wav": "b/1.wav", "labels": "/m/2"}]}'
AST_EVAL = AST.replace(b"a/0", b"a/2").replace(b"b/1", b"c, d")
METADATA_CSV = b"file_name,label,split\na/0.wav,dog,train\nb/1.wav,cat,test\n"
METADATA_JSONL = (
    b'{"file_name": "a/0.wav", "label": ["dog", "cat"], "split": "train"}\n'
    b'{"file_name": "b/1.wav", "label": "cat", "split": "test"}\n'
)
EPIC = (
    b"annotation_id,video_id,start_timestamp,stop_timestamp,class,class_id\n"
    b"x_0,0,00:00:00.100,00:00:00.350,zip,4\nx_1,1,00:01:00.250,00:01:10.5,water,5\n"
)
ESC = b"filename,fold,target,category,src_file\n0.wav,1,0,dog,s1\n1.wav,2,1,cat,s2\n2.wav,3,1,cat,s3\n"
URBAN = b"slice_file_name,fsID,fold,class\n0.wav,7,1,dog\n1.wav,8,2,cat\n"
LIST = b"a/0.wav\n"

# The file that is damaged first, then what makes the set whole.
SETS: dict[str, dict[str, bytes]] = {
    "split table": {"split.csv": SPLIT},
    "fold table": {"split.csv": FOLD},
    "classes": {"class_labels_indices.csv": CLASSES, "train.json": AST, "eval.json": AST_EVAL},
    "segments": {
        "eval_segments.csv": SEGMENTS,
        "class_labels_indices.csv": CLASSES,
        "balanced_train_segments.csv": SEGMENTS.replace(b"a0", b"a2").replace(b"b1", b"2"),
    },
    "AST": {"train.json": AST, "eval.json": AST_EVAL, "class_labels_indices.csv": CLASSES},
    "metadata.csv": {"metadata.csv": METADATA_CSV},
    "metadata.jsonl": {"metadata.jsonl": METADATA_JSONL},
    "EPIC-SOUNDS": {
        "EPIC_Sounds_train.csv": EPIC,
        "EPIC_Sounds_validation.csv": EPIC.replace(b"x_0,0", b"x_2,2").replace(b"x_1,1", b"x_3,a0"),
    },
    "ESC-50": {"meta/esc50.csv": ESC},
    "UrbanSound8K": {"metadata/UrbanSound8K.csv": URBAN},
    "Speech Commands": {"validation_list.txt": LIST, "testing_list.txt": b"b/1.wav\n"},
}
SOUNDS = ("a/0.wav", "b/1.wav", "c, d.wav", "a/2.wav", "a0.wav", "b1.wav", "a2.wav", "0.wav", "1.wav", "2.wav")
SOUNDS += tuple(f"audio/{name}" for name in ("0.wav", "1.wav", "2.wav", "fold1/0.wav", "fold2/1.wav"))

_TEXTS = (
    '|,|"|""|\t| |#|-|0|-1|1e999|nan|inf|1_0|\u0661|..|/|[|{|}|null|true|"\\ud800"|"\\udce9"|\\|:|../a/0.wav|a/0.wav|'
    "train|test|/m/1|/dev/zero|/proc/self/mem|~|$HOME|%00|\n|\r|\0"
)
PIECES = [text.encode() for text in _TEXTS.split("|")]
PIECES += [b"\xff", b"\xed\xb3\xa9", b"\xef\xbb\xbf", b"\xff\xfe", b"9" * 400, b"9" * 5000, b"a" * 300, b"/" * 5000]
PIECES += [b"x" * 140_000, b"[" * 20_000]


def damage(content: bytes, draw: random.Random) -> bytes:
    """One to four changes: a piece put in or over, a stretch cut out or doubled, a bit turned, the end cut off."""
    for _ in range(draw.randint(1, 4)):
        first, last = sorted(draw.randint(0, len(content)) for _ in range(2))
        last = min(last, first + 40)
        match draw.randrange(6):
            case 0:
                content = content[:first] + draw.choice(PIECES) + content[first:]
            case 1:
                content = content[:first] + draw.choice(PIECES) + content[last:]
            case 2:
                content = content[:first] + content[last:]
            case 3:
                content = content[:last] + content[first:]
            case 4 if first < len(content):
                content = content[:first] + bytes([content[first] ^ 1 << draw.randrange(8)]) + content[first + 1 :]
            case 5:
                content = content[:first]
    return content


def cells(content: bytes, draw: random.Random) -> bytes:
    """A cell, or a value of JSON, is another."""
    if content.startswith(b"{"):
        lines = [json.loads(line) for line in content.splitlines()]
        row = draw.choice(draw.choice(lines).get("data", lines))
        other = [None, True, 0, 1e308, "", "a/0.wav", [], [[]], {}, ["dog"], "\ud800", "\udce9", "x" * 300, "/", "\0"]
        row[draw.choice([*row, "data", "extra"])] = draw.choice(other)
        return b"\n".join(json.dumps(line).encode() for line in lines)
    rows = [line.split(b",") for line in content.split(b"\n")]
    row = draw.choice(rows)
    row[draw.randrange(len(row))] = draw.choice(PIECES)
    return b"\n".join(b",".join(row) for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("change", [damage, cells])
@pytest.mark.parametrize("kind", SETS)
def test_only_documented_errors_come_out(
    kind: str, change: Callable[[bytes, random.Random], bytes], tmp_path: Path
) -> None:
    files = SETS[kind]
    for name in (*SOUNDS, *files):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(files.get(name, b""))
    for name in SOUNDS:
        if kind in ("metadata.csv", "metadata.jsonl", "Speech Commands") and name.startswith("audio"):
            (tmp_path / name).unlink()
    load_splits(tmp_path)  # as it is, it can be read
    target, *_ = files
    draw = random.Random(f"{kind} {change.__name__}")
    refused = 0
    for _ in range(CASES):
        content = change(files[target], draw)
        (tmp_path / target).write_bytes(content)
        try:
            splits = load_splits(tmp_path)
        except DataError as error:
            refused += 1
            str(error).encode()
        except Exception as error:
            raise AssertionError(f"{kind}: {content[:500]!r}") from error
        else:
            splits.summary().encode()
            assert splits.train
            assert splits.test
    assert 0 < refused < CASES
