"""Which data set a folder holds, known by the files of its official layout."""

from pathlib import Path

from fastloaa.data.audioset import AUDIOSET_LAYOUT, CLASSES_GLOB, SEGMENTS_GLOB, load_audioset
from fastloaa.data.clips import AudioSplits, DataError
from fastloaa.data.epic_sounds import EPIC_SOUNDS_LAYOUT, TRAIN_TABLE, VALIDATION_TABLE, load_epic_sounds
from fastloaa.data.esc50 import ESC50_LAYOUT, META, load_esc50
from fastloaa.data.folder import find_sounds, load_folder
from fastloaa.data.speech_commands import (
    NOISE,
    SPEECH_COMMANDS_LAYOUT,
    TESTING_LIST,
    VALIDATION_LIST,
    load_speech_commands,
)
from fastloaa.data.split_table import SPLIT_FILE, load_split_table

# One of these files is enough to know the data set by: its loader then names what is missing. Patterns as of glob.
_MARKS = {
    "ESC-50": (META.as_posix(),),
    "Speech Commands": (VALIDATION_LIST, TESTING_LIST, NOISE),
    "EPIC-SOUNDS": (TRAIN_TABLE, VALIDATION_TABLE, "EPIC_audio.hdf5"),
    "AudioSet": (CLASSES_GLOB, SEGMENTS_GLOB),
}
LAYOUTS = {
    "ESC-50": ESC50_LAYOUT,
    "Speech Commands": SPEECH_COMMANDS_LAYOUT,
    "EPIC-SOUNDS": EPIC_SOUNDS_LAYOUT,
    "AudioSet": AUDIOSET_LAYOUT,
    "folder of sounds": f"label/clip.wav, and {SPLIT_FILE} to choose splits",
}
"""The layouts that `load_splits` knows: name -> the files that make it up."""


def load_splits(path: str | Path, *, test_fold: int = 1, validation: float | None = None, seed: int = 0) -> AudioSplits:
    """The splits of a data set in any layout of `LAYOUTS`, known by its files; or of a table, see `load_split_table`.

    Args:
        path: the data set's folder, or the CSV file of a split table.
        test_fold: for sets in folds, the fold to test on.
        validation: fraction to validate on; None leaves the layout's default: the official validation clips where
            there are some, 0.1 for folders, none otherwise. No say where a table lists validation clips.
        seed: of the random choice of what is held out.

    Raises:
        DataError: none of these layouts, a `validation` for Speech Commands, which has its own, or what the layout's
            loader raises.
    """
    root = Path(path)
    table = root / SPLIT_FILE if root.is_dir() else root
    if table.is_file() and table.suffix.lower() == ".csv":
        return load_split_table(table, test_fold, validation or 0.0, seed)
    match _recognise(root):
        case "ESC-50":
            return load_esc50(root, test_fold, validation or 0.0, seed)
        case "Speech Commands":
            if validation is not None:
                raise DataError(f"{root}: Speech Commands has validation clips; leave validation={validation} out")
            return load_speech_commands(root)
        case "EPIC-SOUNDS":
            return load_epic_sounds(root, validation or 0.0, seed)
        case "AudioSet":
            return load_audioset(root, test_fold, validation, seed)
    _refuse_near_misses(root)
    return load_folder(root, seed=seed, **({} if validation is None else {"validation": validation}))


def _recognise(root: Path) -> str | None:
    for name, marks in _MARKS.items():
        if any(any(root.glob(mark)) for mark in marks):
            return name
    return None


def _refuse_near_misses(root: Path) -> None:
    """Raise DataError where a folder is no data set of label folders but was perhaps meant as one of the others."""
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []
    for folder in folders:
        if name := _recognise(folder):
            raise DataError(f"{root}: holds no data set, but {folder.name} in it has {name}'s files; give {folder}")
    labels = find_sounds(root) if folders else {}
    if labels.keys() == {"audio"}:
        raise DataError(f"{root}: audio/ without a table; expected ESC-50's layout, {ESC50_LAYOUT}, or another's table")
    if not labels:
        names = ", ".join(_MARKS)
        raise DataError(
            f"{root}: {_describe(root)}; expected a folder of sounds per class (label/clip.wav), "
            f"or the official layout of one of {names}"
        )


def _describe(path: Path) -> str:
    """What is there, for an error message."""
    if not path.exists():
        return "no such folder"
    if not path.is_dir():
        return "a file, not a folder"
    names = sorted(entry.name + "/" * entry.is_dir() for entry in path.iterdir() if not entry.name.startswith("."))
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"holds {', '.join(names[:5])}{more}" if names else "an empty folder"
