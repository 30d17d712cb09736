"""Sets with several labels to a clip: AudioSet (Gemmeke et al. 2017) in its official tables or in AST's JSON files."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fastloaa.data.clips import AudioSplits, Clip, DataError, stratified_split
from fastloaa.data.folder import AUDIO_SUFFIXES
from fastloaa.data.table import integer, read_table

CLASSES_GLOB, SEGMENTS_GLOB = "*class_labels_indices.csv", "*_segments.csv"
AUDIOSET_LAYOUT = (
    "class_labels_indices.csv with either *train_segments.csv, eval_segments.csv and audio/<YTID>.wav, "
    "or AST's *train*.json and *eval*.json"
)
_SEGMENT_COLUMNS = ("YTID", "start_seconds", "end_seconds", "positive_labels")


def load_audioset(root: str | Path, test_fold: int = 1, validation: float | None = None, seed: int = 0) -> AudioSplits:
    """AudioSet, or any set described in the same way.

    The classes are those of `class_labels_indices.csv` (columns index, mid, display_name), in the order of index.
    The clips come from AST's JSON files if they are there, otherwise from the official tables of segments:

    - AST (https://github.com/YuanGongND/ast): `*train*.json`, `*eval*.json` and, if there is one, `*valid*.json`, each
      `{"data": [{"wav": path, "labels": "mid,mid"}]}`; paths are absolute or relative to `root`. Names that end in a
      number, such as `esc_train_data_1.json`, are folds, of which `test_fold` chooses one.
    - AudioSet (https://research.google.com/audioset/download.html): all of `*train_segments.csv` for training,
      `eval_segments.csv` for testing. The ten-second clips are anywhere below `root` and named by YTID, as most tools
      do that cut them out: `<YTID>.wav`, `Y<YTID>.wav`, `<YTID>_<start>.wav` or `<YTID>_<start>_<end>.wav`, in any
      format. Clips without a file are left out and counted (`AudioSplits.missing`), since videos disappear.

    Args:
        root: folder with these files.
        test_fold: which fold of AST's JSON files.
        validation: fraction of the training clips to validate on; None takes AST's `*valid*.json`, or none.
        seed: of the choice of validation clips.

    Raises:
        DataError: a file is missing or is not what it should be, a label is unknown, a file that a JSON lists is
            missing, no clip of a split has a file, or a `validation` besides `*valid*.json`.
    """
    root = Path(root)
    labels, classes = _read_classes(_only(root, CLASSES_GLOB))
    listed = _from_json(root, labels, test_fold) or _from_tables(root, labels)
    train, held_out = listed.train, listed.validation
    if not held_out:
        train, held_out = stratified_split(train, validation or 0.0, seed)
    elif validation is not None:
        raise DataError(f"{root}: has a *valid*.json of its own; leave validation={validation} out")
    return AudioSplits(root.resolve().name, classes, train, held_out, listed.test, listed.missing)


class _Listed(NamedTuple):
    train: tuple[Clip, ...]
    validation: tuple[Clip, ...]
    test: tuple[Clip, ...]
    missing: int


def _from_json(root: Path, labels: dict[str, int], fold: int) -> _Listed | None:
    """What AST's JSON files list; None if there are none for training."""
    train, valid, test = (_fold(root, pattern, fold) for pattern in ("*train*.json", "*valid*.json", "*eval*.json"))
    if not train:
        return None
    if not test:
        raise _incomplete(root, "*eval*.json")

    def read(files: list[Path]) -> tuple[Clip, ...]:
        return tuple(clip for file in files for clip in _read_json(file, labels))

    return _Listed(read(train), read(valid), read(test), missing=0)


def _from_tables(root: Path, labels: dict[str, int]) -> _Listed:
    """What AudioSet's tables list and there is a file of."""
    sounds = _Sounds(root)
    splits = []
    for pattern in ("*train_segments.csv", "*eval_segments.csv"):
        tables = sorted(root.glob(pattern))
        if not tables:
            raise _incomplete(root, pattern)
        splits.append(tuple(clip for table in tables for clip in _read_segments(table, labels, sounds)))
        if not splits[-1]:
            raise DataError(f"{root}: no clip of {tables[0].name} has a file; expected them as audio/<YTID>.wav")
    return _Listed(splits[0], (), splits[1], sounds.missing)


def _incomplete(root: Path, name: str) -> DataError:
    return DataError(f"{root}: no {name}; expected AudioSet's layout, {AUDIOSET_LAYOUT}")


def _only(root: Path, pattern: str) -> Path:
    """The one file in `root` with such a name."""
    found = sorted(root.glob(pattern))
    if not found:
        raise _incomplete(root, pattern)
    if len(found) > 1:
        raise DataError(f"{root}: both {found[0].name} and {found[1].name}; leave the one that the labels refer to")
    return found[0]


def _fold(root: Path, pattern: str, fold: int) -> list[Path]:
    """The JSON files with such a name: where names end in numbers, those of the fold."""
    found = sorted(root.glob(pattern))
    if not any(path.stem[-1].isdigit() for path in found):
        return found
    chosen = [path for path in found if re.search(rf"(?<!\d){fold}$", path.stem)]
    if not chosen:
        raise DataError(f"{root}: no {pattern} of fold {fold}; give the number of one that is there as the test fold")
    return chosen


def _read_classes(table: Path) -> tuple[dict[str, int], tuple[str, ...]]:
    """mid -> label, and the names of the classes."""
    rows = [
        (integer(row["index"], "index", where), row["mid"], row["display_name"], where)
        for where, row in read_table(table, ("index", "mid", "display_name"))
    ]
    for expected, (index, _, _, where) in enumerate(sorted(rows)):
        if index != expected:
            raise DataError(f"{where}: index {index}; expected 0 to {len(rows) - 1}, each once")
    ordered = sorted(rows)
    return {mid: index for index, mid, *_ in ordered}, tuple(name for _, _, name, _ in ordered)


def _labels(mids: str, labels: dict[str, int], where: str) -> tuple[int, ...]:
    """The labels of comma-separated mids, each once."""
    found: dict[int, None] = {}
    for mid in filter(None, (part.strip() for part in mids.split(","))):
        if mid not in labels:
            raise DataError(f"{where}: label {mid!r} is not in the table of classes; add it there or delete it here")
        found[labels[mid]] = None
    return tuple(found)


def _read_json(file: Path, labels: dict[str, int]) -> Iterator[Clip]:
    """The clips of one of AST's JSON files."""
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))["data"]
        pairs = [(str(entry["wav"]), str(entry["labels"])) for entry in entries]
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f'{file}: expected {{"data": [{{"wav": path, "labels": "mid,mid"}}]}}; correct it') from error
    for number, (wav, mids) in enumerate(pairs):
        where = f"{file} entry {number}"
        path = file.parent / wav  # an absolute path stays what it is
        if not path.is_file():
            raise DataError(f"{where}: no file {path}; put it there or delete the entry")
        yield Clip(path, _labels(mids, labels, where))


class _Sounds:
    """Sound files by YTID, and how many were asked for in vain."""

    def __init__(self, root: Path) -> None:
        self.missing = 0
        self._files: dict[str, Path] = {}
        for path in sorted(root.rglob("*"), key=Path.as_posix):
            if path.suffix.lower() in AUDIO_SUFFIXES:
                for name in _without_times(path.stem):
                    self._files.setdefault(name, path)

    def find(self, ytid: str) -> Path | None:
        path = self._files.get(ytid) or self._files.get(f"Y{ytid}")
        self.missing += path is None
        return path


def _without_times(stem: str) -> Sequence[str]:
    """The stem, and what is left of it without one and without two numbers at the end: `id_30.000_40.000`."""
    found = [stem]
    while len(found) < 3 and (match := re.fullmatch(r"(.+)_[\d.]+", found[-1])):
        found.append(match[1])
    return found


def _read_segments(table: Path, labels: dict[str, int], sounds: _Sounds) -> Iterator[Clip]:
    """The clips of a table of segments that have a file."""
    for where, row in read_table(table, _SEGMENT_COLUMNS, header=_SEGMENT_COLUMNS):
        found = _labels(row["positive_labels"], labels, where)
        if path := sounds.find(row["YTID"]):
            yield Clip(path, found)
