"""Folders of sounds: one folder per class, `root/label/clip.wav`."""

from pathlib import Path

import soundfile

from fastloaa.data.clips import AudioSplits, Clip, DataError, stratified_split
from fastloaa.data.split_table import SPLIT_FILE, load_split_table

# soundfile names formats; a few are better known by other suffixes. RAW has no header, so it cannot be read alone.
_FORMATS = {name.lower() for name in soundfile.available_formats()} - {"raw"}
AUDIO_SUFFIXES = frozenset(f".{name}" for name in _FORMATS | {"aif", "aifc", "oga", "opus", "wave", "snd"})


def load_folder(root: str | Path, validation: float = 0.1, test: float = 0.2, seed: int = 0) -> AudioSplits:
    """A data set from `root/label/.../clip.wav`: the folders directly below `root` that hold sounds are its classes.

    Sounds are files with a suffix that soundfile reads, in any case; hidden files and folders are left out. Every class
    is divided at random, unless there is a `root/split.csv`, which then says everything: see `load_split_table`.

    Args:
        root: the folder; it gives the data set its name, and its sub-folders the classes, in alphabetical order.
        validation: fraction of the clips to validate on, used without `split.csv`.
        test: fraction of the clips to test on, likewise.
        seed: of the random split, likewise.

    Raises:
        DataError: no such folder, no label folders with sounds, fewer than two classes, fractions that leave nothing
            to train on, or what `load_split_table` raises.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected one with a folder of sounds per class")
    if (root / SPLIT_FILE).is_file():
        return load_split_table(root / SPLIT_FILE)
    sounds = find_sounds(root)
    if not sounds:
        raise DataError(f"{root}: no label folders with sounds; expected {root.name or 'root'}/label/clip.wav")
    classes = tuple(sounds)
    if len(classes) < 2:
        raise DataError(f"{root}: only one class, {classes[0]!r}; expected a folder of sounds for each of two or more")
    clips = [Clip(path, (label,)) for label, name in enumerate(classes) for path in sounds[name]]
    return AudioSplits(root.resolve().name, classes, *_random_split(clips, validation, test, seed))


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
