"""Which data set a folder holds, known by the files of its official layout."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fastloaa.data.ast_files import AST_LAYOUT, find_data_files
from fastloaa.data.audiofolder import AUDIOFOLDER_LAYOUT, find_metadata, load_audiofolder
from fastloaa.data.audioset import AUDIOSET_LAYOUT, SEGMENTS_GLOB, load_audioset
from fastloaa.data.class_table import CLASSES_GLOB
from fastloaa.data.clips import AudioSplits, DataError
from fastloaa.data.epic_sounds import EPIC_SOUNDS_LAYOUT, TRAIN_TABLE, VALIDATION_TABLE, load_epic_sounds
from fastloaa.data.esc50 import ESC50_LAYOUT, META, load_esc50
from fastloaa.data.folder import load_folder
from fastloaa.data.sounds import LeftOut, clips_below, matching
from fastloaa.data.speech_commands import (
    NOISE,
    SPEECH_COMMANDS_LAYOUT,
    TESTING_LIST,
    VALIDATION_LIST,
    load_speech_commands,
)
from fastloaa.data.split_folders import (
    find_layout,
    fold_of,
    load_split_folders,
)
from fastloaa.data.split_table import SPLIT_FILE, load_split_table
from fastloaa.data.urbansound8k import TABLES, URBANSOUND8K_LAYOUT, load_urbansound8k
from fastloaa.text import printable


def _any_of(*patterns: str) -> Callable[[Path], object]:
    return lambda root: any(matching(root, pattern) for pattern in patterns)


@dataclass(frozen=True)
class Layout:
    """A layout that a data set is published in.

    Args:
        files: the files that make it up, for messages.
        known_by: whether a folder has some of its files. One is enough: `load` then names what is missing.
        load: (root, test_fold, validation, seed) -> the splits; arguments and errors as of `load_splits`.
    """

    files: str
    known_by: Callable[[Path], object]
    load: Callable[[Path, int, float | None, int], AudioSplits]


def _speech_commands(root: Path, test_fold: int, validation: float | None, seed: int) -> AudioSplits:
    if validation is not None:
        raise DataError(f"{root}: Speech Commands has validation clips; leave validation={validation} out")
    return load_speech_commands(root)


LAYOUTS: dict[str, Layout] = {
    "ESC-50": Layout(
        ESC50_LAYOUT,
        _any_of(META.as_posix()),
        lambda root, fold, validation, seed: load_esc50(root, fold, validation or 0.0, seed),
    ),
    "UrbanSound8K": Layout(
        URBANSOUND8K_LAYOUT,
        _any_of(*TABLES),
        lambda root, fold, validation, seed: load_urbansound8k(root, fold, validation or 0.0, seed),
    ),
    "Speech Commands": Layout(SPEECH_COMMANDS_LAYOUT, _any_of(VALIDATION_LIST, TESTING_LIST, NOISE), _speech_commands),
    "EPIC-SOUNDS": Layout(
        EPIC_SOUNDS_LAYOUT,
        _any_of(TRAIN_TABLE, VALIDATION_TABLE, "EPIC_audio.hdf5"),
        lambda root, _, validation, seed: load_epic_sounds(root, validation or 0.0, seed),
    ),
    "AudioSet": Layout(AUDIOSET_LAYOUT, _any_of(CLASSES_GLOB, SEGMENTS_GLOB), load_audioset),
    "AST": Layout(AST_LAYOUT, find_data_files, load_audioset),
    "audiofolder": Layout(
        AUDIOFOLDER_LAYOUT,
        find_metadata,
        lambda root, _, validation, seed: load_audiofolder(root, validation, seed),
    ),
}
"""The published layouts by name; the first that knows a folder reads it. Add a `Layout` and `load_splits` knows it.

What none of them knows are folders of splits, of folds, or of one folder per class.
"""


def load_splits(path: str | Path, *, test_fold: int = 1, validation: float | None = None, seed: int = 0) -> AudioSplits:
    """The splits of a data set in any layout of `LAYOUTS`, or in folders of labels, splits or folds; or of a table, see
    `load_split_table`.

    Args:
        path: the data set's folder, or the CSV file of a split table.
        test_fold: for sets in folds, the fold to test on.
        validation: fraction to validate on; None leaves the layout's default: the official validation clips where
            there are some, 0.1 where every class is divided at random, none otherwise. No say where a table or a
            folder lists validation clips.
        seed: of the random choice of what is held out.

    Raises:
        DataError: none of these, a `validation` for Speech Commands, which has its own, or what the layout's
            loader raises.
    """
    root = Path(path)
    table = root / SPLIT_FILE if root.is_dir() else root
    if table.is_file() and table.suffix.lower() == ".csv":
        return load_split_table(table, test_fold, validation or 0.0, seed)
    if name := _recognise(root):
        return LAYOUTS[name].load(root, test_fold, validation, seed)
    sounds = clips_below(root, LeftOut()) if root.is_dir() else []
    _refuse_near_misses(root, sounds)
    if find_layout(root, sounds):
        return load_split_folders(root, test_fold, validation, seed)
    return load_folder(root, seed=seed, **({} if validation is None else {"validation": validation}))


def _recognise(root: Path) -> str | None:
    return next((name for name, layout in LAYOUTS.items() if layout.known_by(root)), None)


def _refuse_near_misses(root: Path, sounds: list[Path]) -> None:
    """Raise DataError where a folder is no data set of label folders but was perhaps meant as one of the others."""
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []
    for folder in folders:
        if name := _recognise(folder):
            raise DataError(f"{root}: holds no data set, but {folder.name} in it has {name}'s files; give {folder}")
    first = {parts[0] for path in sounds if len(parts := path.relative_to(root).parts) > 1}
    if len(first) == 1:
        (only,) = first
        if layout := find_layout(root / only, (path for path in sounds if path.parent != root)):
            raise DataError(
                f"{root}: holds no label folders, but {printable(only)} in it has folders of {layout.by}s; "
                f"give {root / only}"
            )
    above = root.resolve().parent
    if first and all(map(fold_of, first)) and _recognise(above) == "UrbanSound8K":
        raise DataError(f"{root}: the folds of UrbanSound8K, whose table is in {above}; give that folder")
    if first == {"audio"}:
        raise DataError(f"{root}: audio/ without a table; expected ESC-50's layout, {ESC50_LAYOUT}, or another's table")
    if not first:
        raise DataError(
            f"{root}: {_describe(root)}; expected a folder of sounds per class (label/clip.wav), in folders of splits "
            f"or folds if it has them, or the official layout of one of {', '.join(LAYOUTS)}"
        )


def _describe(path: Path) -> str:
    """What is there, for an error message."""
    if not path.exists():
        return "no such folder"
    if not path.is_dir():
        return "a file, not a folder"
    names = sorted(
        printable(entry.name) + "/" * entry.is_dir() for entry in path.iterdir() if not entry.name.startswith(".")
    )
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"holds {', '.join(names[:5])}{more}" if names else "an empty folder"
