"""Folders of sounds: one folder per class, `root/label/clip.wav`."""

from pathlib import Path

from fastloaa.data.clips import AudioSplits, DataError
from fastloaa.data.divide import FOLDER_TEST, FOLDER_VALIDATION, Listed, divide
from fastloaa.data.sounds import LeftOut, clip_suffixes, clips_below, some_of
from fastloaa.data.split_table import SPLIT_FILE, load_split_table
from fastloaa.text import printable

NEED_EXTRA = "sounds in formats that need pip install 'fastloaa[formats]'"
NO_LABEL = "sounds outside of label folders"


def load_folder(
    root: str | Path, validation: float = FOLDER_VALIDATION, test: float = FOLDER_TEST, seed: int = 0
) -> AudioSplits:
    """A data set from `root/label/.../clip.wav`: the folders directly below `root` that hold sounds are its classes.

    Sounds are what `clips_below` finds. Every class is divided at random, unless there is a `root/split.csv`, which
    then says everything: see `load_split_table`.

    Args:
        root: the folder; it gives the data set its name, and its sub-folders the classes, in alphabetical order.
        validation: fraction of the clips to validate on, used without `split.csv`.
        test: fraction of the clips to test on, likewise.
        seed: of the random split, likewise.

    Raises:
        DataError: no such folder, no label folders with sounds, fewer than two classes, a class none of whose sounds
            can be read without the extra `fastloaa[formats]`, fractions that leave nothing to train on, or what
            `load_split_table` raises.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected one with a folder of sounds per class")
    if (root / SPLIT_FILE).is_file():
        return load_split_table(root / SPLIT_FILE)
    left_out = LeftOut()
    sounds = find_sounds(root, left_out)
    if not sounds:
        raise DataError(f"{root}: no label folders with sounds; expected {root.name or 'root'}/label/clip.wav")
    if len(sounds) < 2:
        raise DataError(
            f"{root}: only one class, {next(iter(sounds))!r}; expected a folder of sounds for each of two or more"
        )
    listed = [Listed(path, (label,)) for label, paths in sounds.items() for path in paths]
    name = printable(root.resolve().name)
    return divide(name, root, listed, "random", validation=validation, test=test, seed=seed, left_out=left_out)


def find_sounds(root: Path, left_out: LeftOut | None = None) -> dict[str, list[Path]]:
    """The readable sounds below each folder of `root` that has any: label -> paths, both in alphabetical order.

    Args:
        left_out: is told of sounds in formats that need an extra and of those in no folder, see also `clips_below`.

    Raises:
        DataError: a folder has sounds, but none that can be read without the extra `fastloaa[formats]`.
    """
    left_out = LeftOut() if left_out is None else left_out
    sounds: dict[str, list[Path]] = {}
    for path in clips_below(root, left_out):
        label, *rest = path.relative_to(root).parts
        if rest:
            sounds.setdefault(printable(label), []).append(path)
        else:
            left_out.add(NO_LABEL, label)
    return readable(root, sounds, left_out)


def readable(root: Path, sounds: dict[str, list[Path]], left_out: LeftOut) -> dict[str, list[Path]]:
    """Those of the sounds of each class that this installation reads; `left_out` is told of the others.

    Raises:
        DataError: that would be none of a class.
    """
    kept: dict[str, list[Path]] = {}
    suffixes = clip_suffixes()
    for label in sorted(sounds):
        kept[label] = [path for path in sounds[label] if path.suffix.lower() in suffixes]
        others = [path.relative_to(root) for path in sounds[label] if path.suffix.lower() not in suffixes]
        if not kept[label]:
            raise DataError(
                f"{root}: all sounds of {label!r} ({some_of([printable(path) for path in others])}) are in formats "
                "that need pip install 'fastloaa[formats]'; install it, convert them, or take the folder out"
            )
        for path in others:
            left_out.add(NEED_EXTRA, path)
    return kept
