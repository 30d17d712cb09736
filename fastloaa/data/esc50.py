"""ESC-50 (Piczak 2015, https://github.com/karolpiczak/ESC-50) and subsets in its layout, such as ESC-10."""

from pathlib import Path

from fastloaa.data.clips import AudioSplits, Clip, DataError, stratified_split
from fastloaa.data.sounds import has_file
from fastloaa.data.table import integer, read_table
from fastloaa.text import printable

META = Path("meta", "esc50.csv")
FOLDS = 5
ESC50_LAYOUT = f"{META.as_posix()} and audio/"
_COLUMNS = ("filename", "fold", "target", "category", "src_file")


def load_esc50(root: str | Path, test_fold: int = 1, validation: float = 0.0, seed: int = 0) -> AudioSplits:
    """One round of ESC-50's official five-fold cross-validation.

    Targets are renumbered without gaps in the order of the official ones (ESC-10 has 10 of the 50). The official
    protocol has no validation split.

    Args:
        root: folder with `meta/esc50.csv` and `audio/`.
        test_fold: the fold to test on, 1 to 5; the other four are for training.
        validation: fraction of the training folds to hold out for validation, by class, all clips of one source
            recording on the same side; 0 holds out none.
        seed: of the choice of validation clips.

    Raises:
        DataError: no `meta/esc50.csv`, missing columns, a fold outside 1 to 5, a target that is not an integer or has
            two categories, a file that is listed but missing; or no clip left for a split.
    """
    root = Path(root)
    table = root / META
    if test_fold not in range(1, FOLDS + 1):
        raise DataError(f"ESC-50 has no fold {test_fold}; give a test fold from 1 to {FOLDS}")
    if not table.is_file():
        raise DataError(f"{table}: no such file; expected ESC-50's layout, {ESC50_LAYOUT} in one folder")

    entries: list[tuple[Path, int, int, str]] = []  # path, fold, official target, source recording
    categories: dict[int, str] = {}
    for where, row in read_table(table, _COLUMNS, files=("filename",)):
        fold, target = integer(row["fold"], "fold", where), integer(row["target"], "target", where)
        if fold not in range(1, FOLDS + 1):
            raise DataError(f"{where}: fold {fold}; expected 1 to {FOLDS}")
        if (category := categories.setdefault(target, row["category"])) != row["category"]:
            raise DataError(f"{where}: target {target} is {row['category']!r} here and {category!r} above; correct one")
        path = root / "audio" / row["filename"]
        if not has_file(path):
            raise DataError(f"{where}: no file {path}; download it again or delete the line")
        entries.append((path, fold, target, row["src_file"]))

    label_of = {target: label for label, target in enumerate(sorted(categories))}
    training = [Clip(path, (label_of[target],), source) for path, fold, target, source in entries if fold != test_fold]
    test = tuple(Clip(path, (label_of[target],), source) for path, fold, target, source in entries if fold == test_fold)
    train, held_out = stratified_split(training, validation, seed)
    return AudioSplits(
        name=f"{printable(root.resolve().name)} (test fold {test_fold})",
        classes=tuple(categories[target] for target in label_of),
        train=train,
        validation=held_out,
        test=test,
        fold=test_fold,
    )
