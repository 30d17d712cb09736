"""Splits from a table: which clips take part, in which split or fold, and what belongs together."""

from pathlib import Path

from fastloaa.data.clips import SPLITS, AudioSplits, Clip, DataError, stratified_split
from fastloaa.data.table import integer, read_table

SPLIT_FILE = "split.csv"
"""The name by which a folder's table is found; elsewhere it may have any."""


def load_split_table(table: str | Path, test_fold: int = 1, validation: float = 0.0, seed: int = 0) -> AudioSplits:
    """A data set from a CSV file with a line per clip; files that it does not name are left out.

    Columns:

    - `path`: relative to the table's folder, or absolute.
    - `split`: train, validation or test. Or else `fold`, an integer: one fold is for testing and the others are for
      training, as with ESC-50. A fold per speaker, for example, makes the rounds of leave-one-speaker-out.
    - `label`, optional: the class. Without this column, it is the first folder of `path`.
    - `group`, optional: clips of one group must be in one split.

    Classes are in alphabetical order.

    Args:
        table: the file.
        test_fold: with a column `fold`, the fold to test on.
        validation: with a column `fold`, fraction of the other folds to validate on, by class, with groups whole.
        seed: of the choice of validation clips.

    Raises:
        DataError: a missing column, both `split` and `fold` or neither, an unknown split or fold, a file that is
            missing, without a label or, where its folder would be the label, in none; or fewer than two classes.
    """
    table = Path(table)
    rows = list(read_table(table, ("path",)))
    columns = rows[0][1].keys()
    if ("split" in columns) == ("fold" in columns):
        raise DataError(f"{table}: expected a column split (train, validation, test) or a column fold, one of them")
    part = "split" if "split" in columns else "fold"
    read = [
        (*_file_and_label(table, row, where), _part(row[part], part, where), row.get("group")) for where, row in rows
    ]
    classes = tuple(sorted({label for _, label, _, _ in read}))
    if len(classes) < 2:
        raise DataError(f"{table}: only one class, {classes[0]!r}; expected clips of two or more")

    label_of = {name: label for label, name in enumerate(classes)}
    clips: dict[str, list[Clip]] = {}
    for path, label, belongs, group in read:
        clips.setdefault(belongs, []).append(Clip(path, (label_of[label],), group or None))
    name = table.parent.resolve().name if table.name == SPLIT_FILE else table.stem
    if part == "split":
        train, validation_clips, test = (tuple(clips.get(split, ())) for split in SPLITS)
        return AudioSplits(name, classes, train, validation_clips, test)
    if str(test_fold) not in clips:
        raise DataError(f"{table}: no fold {test_fold}; give a test fold of {', '.join(sorted(clips, key=int))}")
    test = tuple(clips.pop(str(test_fold)))
    train, held_out = stratified_split((clip for fold in clips.values() for clip in fold), validation, seed)
    return AudioSplits(f"{name} (test fold {test_fold})", classes, train, held_out, test)


def _part(text: str, column: str, where: str) -> str:
    """Where a clip belongs: the name of a split, or the number of a fold."""
    if column == "fold":
        return str(integer(text, column, where))
    if text not in SPLITS:
        raise DataError(f"{where}: split {text!r}; expected one of {', '.join(SPLITS)}")
    return text


def _file_and_label(table: Path, row: dict[str, str], where: str) -> tuple[Path, str]:
    given = Path(row["path"])
    if "label" in row:
        label = row["label"]
        if not label:
            raise DataError(f"{where}: no label; fill it in or delete the line")
    else:
        if len(given.parts) < 2 or ".." in given.parts or given.is_absolute():
            raise DataError(f"{where}: {row['path']!r} is not in a label folder; expected label/clip.wav")
        label = given.parts[0]
    path = table.parent / given  # an absolute path stays what it is
    if not path.is_file():
        raise DataError(f"{where}: no file {path}; put it there or delete the line")
    return path, label
