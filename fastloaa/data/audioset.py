"""Sets with several labels to a clip: AudioSet (Gemmeke et al. 2017) in its official tables or in AST's JSON files."""

import re
from collections.abc import Sequence
from pathlib import Path

from fastloaa.audio.formats import suffix
from fastloaa.data.ast_files import AST_LAYOUT, ListedClips, class_tables, find_data_files, read_data_files
from fastloaa.data.class_table import CLASSES_GLOB, labels_of, read_classes
from fastloaa.data.clip import DataError
from fastloaa.data.clip_list import ClipWriter
from fastloaa.data.clips import AudioSplits, stratified_split
from fastloaa.data.folder import NEED_EXTRA
from fastloaa.data.sounds import LeftOut, clip_names_below, clip_suffixes, matching
from fastloaa.data.table import read_table
from fastloaa.text import printable

SEGMENTS_GLOB = "*_segments.csv"
AUDIOSET_LAYOUT = (
    "class_labels_indices.csv with either *train_segments.csv, eval_segments.csv and audio/<YTID>.wav, "
    f"or AST's {AST_LAYOUT}"
)
_SEGMENT_COLUMNS = ("YTID", "start_seconds", "end_seconds", "positive_labels")


def load_audioset(root: str | Path, test_fold: int = 1, validation: float | None = None, seed: int = 0) -> AudioSplits:
    """AudioSet, or any set described in the same way.

    The classes are those of `class_labels_indices.csv` (columns index, mid, display_name), in the order of index.
    The clips come from AST's JSON files if they are there, otherwise from the official tables of segments:

    - AST (https://github.com/YuanGongND/ast): `*train*.json`, `*eval*.json` and, if there is one, `*valid*.json`, each
      `{"data": [{"wav": path, "labels": "mid,mid"}]}`, in `root`, `root/datafiles` or `root/data/datafiles`, with the
      table of classes beside them or one folder up. Paths are absolute, or relative to the file's folder or one of the
      three above it, as AST's scripts leave them. Names that end in a number, such as `esc_train_data_1.json`, are
      folds, of which `test_fold` chooses one.
    - AudioSet (https://research.google.com/audioset/download.html): all of `*train_segments.csv` for training,
      `eval_segments.csv` for testing. The ten-second clips are anywhere below `root` and named by YTID, as most tools
      do that cut them out: `<YTID>.wav`, `Y<YTID>.wav`, `<YTID>_<start>.wav` or `<YTID>_<start>_<end>.wav`, in any
      format. Clips without a file are left out and counted (`AudioSplits.left_out`), since videos disappear.

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
    left_out = LeftOut()
    folder = find_data_files(root)
    labels, classes = read_classes(
        _only(root, matching(root, CLASSES_GLOB) if folder is None else class_tables(folder))
    )
    listed = _from_tables(root, labels, left_out) if folder is None else read_data_files(folder, labels, test_fold)
    train, held_out = listed.train, listed.validation
    if not held_out:
        train, held_out = stratified_split(train, validation or 0.0, seed)
    elif validation is not None:
        raise DataError(f"{root}: has a *valid*.json of its own; leave validation={validation} out")
    name = printable(root.resolve().name)
    return AudioSplits(name, classes, train, held_out, listed.test, left_out.lines(), listed.fold)


def _from_tables(root: Path, labels: dict[str, int], left_out: LeftOut) -> ListedClips:
    """What AudioSet's tables list and there is a file of."""
    sounds = _Sounds(root, left_out)
    splits = []
    for pattern in ("*train_segments.csv", "*eval_segments.csv"):
        tables = matching(root, pattern)
        if not tables:
            raise _incomplete(root, pattern)
        writer = ClipWriter()
        for table in tables:
            _read_segments(table, labels, sounds, writer)
        splits.append(writer.done())
        if not splits[-1]:
            raise DataError(
                f"{root}: no clip of {tables[0].name} has a file; expected them as audio/<YTID>.wav; "
                f"left out: {'; '.join(left_out.lines())}"
            )
    return ListedClips(splits[0], ClipWriter().done(), splits[1])


def _incomplete(root: Path, name: str) -> DataError:
    return DataError(f"{root}: no {name}; expected AudioSet's layout, {AUDIOSET_LAYOUT}")


def _only(root: Path, found: Sequence[Path]) -> Path:
    """The one table of classes."""
    if not found:
        raise _incomplete(root, CLASSES_GLOB)
    if len(found) > 1:
        raise DataError(f"{root}: both {found[0].name} and {found[1].name}; leave the one that the labels refer to")
    return found[0]


class _Sounds:
    """Sound files by YTID; `left_out` is told of those that were asked for in vain."""

    def __init__(self, root: Path, left_out: LeftOut) -> None:
        self._left_out = left_out
        self._files: dict[str, str] = {}
        self._suffixes = clip_suffixes()
        for path in clip_names_below(root, left_out):
            for name in _without_times(path[path.rfind("/") + 1 : path.rfind(".")]):
                other = self._files.get(name)
                if other is None or (self._reads(path) and not self._reads(other)):
                    self._files[name] = path

    def find(self, ytid: str) -> str | None:
        path = self._files.get(ytid) or self._files.get(f"Y{ytid}")
        if path is None:
            self._left_out.add("clips that are listed but have no file", ytid)
        elif not self._reads(path):
            self._left_out.add(NEED_EXTRA, Path(path).name)
            return None
        return path

    def _reads(self, path: str) -> bool:
        return suffix(path) in self._suffixes


def _without_times(stem: str) -> Sequence[str]:
    """The stem, and what is left of it without one and without two numbers at the end: `id_30.000_40.000`."""
    found = [stem]
    while len(found) < 3 and (match := re.fullmatch(r"(.+)_[\d.]+", found[-1])):
        found.append(match[1])
    return found


def _read_segments(table: Path, labels: dict[str, int], sounds: _Sounds, writer: ClipWriter) -> None:
    """Add the clips of a table of segments that have a file."""
    for where, row in read_table(table, _SEGMENT_COLUMNS, header=_SEGMENT_COLUMNS):
        found = labels_of(row["positive_labels"], labels, where)
        if path := sounds.find(row["YTID"]):
            writer.add(path, found)
