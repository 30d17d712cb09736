"""Data sets: which clips, their classes, their splits, and batches of them."""

from pathlib import Path

from fastloaa.data.clips import AudioSplits, Clip, DataError, stratified_split
from fastloaa.data.esc50 import META, load_esc50
from fastloaa.data.folder import SPLIT_FILE, find_sounds, load_folder
from fastloaa.data.loader import Batch, BrokenFiles, ClipDataset, Sample, collate
from fastloaa.data.words import COMMANDS, PRETRAIN_WORDS, Voice, draw_voices, synthesise_words

__all__ = [
    "COMMANDS",
    "PRETRAIN_WORDS",
    "AudioSplits",
    "Batch",
    "BrokenFiles",
    "Clip",
    "ClipDataset",
    "DataError",
    "Sample",
    "Voice",
    "collate",
    "draw_voices",
    "load_esc50",
    "load_folder",
    "load_splits",
    "stratified_split",
    "synthesise_words",
]


def load_splits(path: str | Path, *, test_fold: int = 1, validation: float | None = None, seed: int = 0) -> AudioSplits:
    """The splits of a data set in either layout: ESC-50's, known by `meta/esc50.csv`, or `label/clip.wav` folders.

    Args:
        path: the data set's folder.
        test_fold: for ESC-50's layout, see `load_esc50`.
        validation: fraction to validate on; None leaves the layout's default, 0 for ESC-50 and 0.1 for folders.
        seed: of the random choice of what is held out.

    Raises:
        DataError: neither layout, or what `load_esc50` and `load_folder` raise.
    """
    root = Path(path)
    share = {} if validation is None else {"validation": validation}
    if (root / META).is_file():
        return load_esc50(root, test_fold, seed=seed, **share)
    if root.is_dir() and ((root / SPLIT_FILE).is_file() or find_sounds(root)):
        return load_folder(root, seed=seed, **share)
    raise DataError(
        f"{root}: {_describe(root)}; expected ESC-50's layout ({META.as_posix()} and audio/) or a folder of sounds per "
        "class (label/clip.wav)"
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
