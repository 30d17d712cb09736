"""Folders of sounds: one folder per class, `root/label/clip.wav`."""

from pathlib import Path

import soundfile

from fastloaa.data.clips import SPLITS, AudioSplits, Clip, DataError, stratified_split
from fastloaa.data.table import read_table

SPLIT_FILE = "split.csv"

# soundfile names formats; a few are better known by other suffixes. RAW has no header, so it cannot be read alone.
_FORMATS = {name.lower() for name in soundfile.available_formats()} - {"raw"}
AUDIO_SUFFIXES = frozenset(f".{name}" for name in _FORMATS | {"aif", "aifc", "oga", "opus", "wave", "snd"})


def load_folder(root: str | Path, validation: float = 0.1, test: float = 0.2, seed: int = 0) -> AudioSplits:
    """A data set from `root/label/.../clip.wav`: the folders directly below `root` that hold sounds are its classes.

    Sounds are files with a suffix that soundfile reads, in any case; hidden files and folders are left out. If there
    is a `root/split.csv`, it says which clips take part (others are left out) and in which split: its columns are
    `path` (relative to `root`), `split` (train, validation or test) and, optionally, `group`, which names clips that
    belong together. Otherwise every class is divided at random and `validation`, `test` and `seed` say how.

    Args:
        root: the folder; it gives the data set its name, and its sub-folders the classes, in alphabetical order.
        validation: fraction of the clips to validate on, used without `split.csv`.
        test: fraction of the clips to test on, likewise.
        seed: of the random split, likewise.

    Raises:
        DataError: no such folder, no label folders with sounds, fewer than two classes, fractions that leave nothing
            to train on; or a `split.csv` with missing columns, an unknown split, or a file that is missing or not in
            a label folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected one with a folder of sounds per class")
    sounds = find_sounds(root)
    if not sounds:
        raise DataError(f"{root}: no label folders with sounds; expected {root.name or 'root'}/label/clip.wav")
    listed = _read_split_file(root) if (root / SPLIT_FILE).is_file() else None
    classes = tuple(sorted(sounds)) if listed is None else tuple(sorted({_label(root, clip) for clip, *_ in listed}))
    if len(classes) < 2:
        raise DataError(f"{root}: only one class, {classes[0]!r}; expected a folder of sounds for each of two or more")

    label_of = {name: label for label, name in enumerate(classes)}
    if listed is None:
        clips = [Clip(path, (label_of[name],)) for name in classes for path in sounds[name]]
        train, held_out, tested = _random_split(clips, validation, test, seed)
        return AudioSplits(root.resolve().name, classes, train, held_out, tested)
    splits: dict[str, list[Clip]] = {split: [] for split in SPLITS}
    for path, split, group in listed:
        splits[split].append(Clip(path, (label_of[_label(root, path)],), group))
    return AudioSplits(root.resolve().name, classes, *(tuple(splits[split]) for split in SPLITS))


def find_sounds(root: Path) -> dict[str, list[Path]]:
    """The sounds below each folder of `root` that has any: label -> paths, both in alphabetical order."""
    sounds: dict[str, list[Path]] = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        found = [
            path
            for path in folder.rglob("*")
            if path.suffix.lower() in AUDIO_SUFFIXES
            and path.is_file()
            and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        ]
        if found:
            sounds[folder.name] = sorted(found, key=Path.as_posix)
    return sounds


def _read_split_file(root: Path) -> list[tuple[Path, str, str | None]]:
    """(path, split, group) of each line of `root/split.csv`."""
    listed = []
    for where, row in read_table(root / SPLIT_FILE, ("path", "split")):
        path, split = root / row["path"], row["split"]
        if split not in SPLITS:
            raise DataError(f"{where}: split {split!r}; expected one of {', '.join(SPLITS)}")
        parts = Path(row["path"]).parts
        if len(parts) < 2 or ".." in parts or Path(row["path"]).is_absolute():
            raise DataError(f"{where}: {row['path']!r} is not in a label folder; expected label/clip.wav")
        if not path.is_file():
            raise DataError(f"{where}: no file {path}; put it there or delete the line")
        listed.append((path, split, row.get("group") or None))
    return listed


def _label(root: Path, path: Path) -> str:
    return path.relative_to(root).parts[0]


def _random_split(
    clips: list[Clip], validation: float, test: float, seed: int
) -> tuple[tuple[Clip, ...], tuple[Clip, ...], tuple[Clip, ...]]:
    """(train, validation, test) with the given fractions of every class."""
    if not (validation >= 0 and test > 0 and validation + test < 1):
        raise DataError(
            f"validation={validation} and test={test} cannot be split off; "
            "expected validation >= 0, test > 0 and a sum below 1"
        )
    rest, tested = stratified_split(clips, test, seed)
    train, held_out = stratified_split(rest, validation / (1 - test), seed)
    return train, held_out, tested
