"""The table of classes of AudioSet and of AST's data: `index,mid,display_name`, where a mid is a label's code."""

from pathlib import Path

from fastloaa.data.clips import DataError
from fastloaa.data.table import integer, read_table

CLASSES_GLOB = "*class_labels_indices.csv"


def read_classes(table: Path) -> tuple[dict[str, int], tuple[str, ...]]:
    """mid -> label, and the names of the classes in the order of index.

    Raises:
        DataError: what `read_table` raises, an index that is not one of 0 to the number of classes, each once, or a
            mid twice.
    """
    rows = [
        (integer(row["index"], "index", where), row["mid"], row["display_name"], where)
        for where, row in read_table(table, ("index", "mid", "display_name"))
    ]
    labels: dict[str, int] = {}
    for expected, (index, mid, _, where) in enumerate(sorted(rows)):
        if index != expected:
            raise DataError(f"{where}: index {index}; expected 0 to {len(rows) - 1}, each once")
        if mid in labels:
            raise DataError(f"{where}: mid {mid!r} is that of another class; correct one")
        labels[mid] = index
    return labels, tuple(name for _, _, name, _ in sorted(rows))


def labels_of(mids: str, labels: dict[str, int], where: str) -> tuple[int, ...]:
    """The labels of comma-separated mids, each once.

    Raises:
        DataError: a mid that is not in `labels`.
    """
    try:
        return tuple(dict.fromkeys([labels[mid] for mid in mids.split(",")]))
    except KeyError:  # spaces, or one that is unknown
        pass
    found: dict[int, None] = {}
    for mid in filter(None, (part.strip() for part in mids.split(","))):
        if mid not in labels:
            raise DataError(f"{where}: label {mid!r} is not in the table of classes; add it there or delete it here")
        found[labels[mid]] = None
    return tuple(found)
