"""UrbanSound8K (Salamon et al. 2014, https://urbansounddataset.weebly.com/urbansound8k.html)."""

from pathlib import Path

from fastloaa.data.clips import AudioSplits, DataError
from fastloaa.data.divide import Listed, divide
from fastloaa.data.sounds import has_file
from fastloaa.data.table import integer, read_table
from fastloaa.text import printable

TABLES = ("metadata/UrbanSound8K.csv", "UrbanSound8K.csv")
URBANSOUND8K_LAYOUT = "metadata/UrbanSound8K.csv and audio/fold1 to audio/fold10"
_COLUMNS = ("slice_file_name", "fsID", "fold", "class")


def load_urbansound8k(root: str | Path, test_fold: int = 1, validation: float = 0.0, seed: int = 0) -> AudioSplits:
    """One round of UrbanSound8K's official cross-validation over ten folds; classes are in alphabetical order.

    Args:
        root: folder with `metadata/UrbanSound8K.csv` and `audio/fold1` to `audio/fold10`; the table may also be in
            `root` itself, and the folds too, as Kaggle has them.
        test_fold: the fold to test on, 1 to 10; the other nine are for training.
        validation: fraction of the training folds to validate on, by class, all slices of one recording on the same
            side; 0 holds out none.
        seed: of the choice of validation clips.

    Raises:
        DataError: no table, missing columns, a fold that is no number or is not there, or a file that is listed but
            missing.
    """
    root = Path(root)
    table = next((root / name for name in TABLES if (root / name).is_file()), None)
    if table is None:
        raise DataError(f"{root / TABLES[0]}: no such file; expected UrbanSound8K's layout, {URBANSOUND8K_LAYOUT}")
    audio = root / "audio" if (root / "audio").is_dir() else root
    listed = []
    for where, row in read_table(table, _COLUMNS, files=("slice_file_name",)):
        fold = integer(row["fold"], "fold", where)
        path = audio / f"fold{fold}" / row["slice_file_name"]
        if not has_file(path):
            raise DataError(f"{where}: no file {path}; unpack the archive again or delete the line")
        # Folds keep recordings whole already; with its number, a group is in one fold whatever the table says.
        listed.append(Listed(path, (row["class"],), str(fold), f"{fold}/{row['fsID']}"))
    name = printable(root.resolve().name)
    return divide(name, table, listed, "fold", test_fold=test_fold, validation=validation, seed=seed)
