"""EPIC-SOUNDS (Huh et al. 2023, https://arxiv.org/abs/2302.00646): sounds of kitchens, as segments of long videos."""

import math
from dataclasses import replace
from pathlib import Path

from fastloaa.audio.formats import sound_suffixes
from fastloaa.data.clips import AudioSplits, Clip, DataError, stratified_split
from fastloaa.data.hdf5 import hdf5_tracks
from fastloaa.data.sounds import LeftOut, matching, sounds_below
from fastloaa.data.table import integer, read_table
from fastloaa.text import printable

TRAIN_TABLE, VALIDATION_TABLE = "EPIC_Sounds_train.csv", "EPIC_Sounds_validation.csv"
EPIC_SOUNDS_LAYOUT = (
    f"{TRAIN_TABLE}, {VALIDATION_TABLE} and either EPIC_audio.hdf5, audio/<video_id>.wav or audio/<annotation_id>.wav"
)
_COLUMNS = ("annotation_id", "video_id", "start_timestamp", "stop_timestamp", "class", "class_id")


def load_epic_sounds(root: str | Path, validation: float = 0.0, seed: int = 0) -> AudioSplits:
    """EPIC-SOUNDS: trained on its training videos and tested on its validation videos, the published ones with labels.

    Classes are renumbered without gaps in the order of `class_id` (the whole set has 44). The sound comes from, in
    this order: one HDF5 file in `root` with a dataset per video, see `fastloaa.data.hdf5`; a sound file per annotation;
    a sound file per video, of which the segment is read.

    Args:
        root: folder with the two tables of https://github.com/epic-kitchens/epic-sounds-annotations, and the sound:
            `EPIC_audio.hdf5` (any name in .hdf5 or .h5), or files at any depth named by annotation or video.
        validation: fraction of the training segments to validate on, by class, each video whole; 0 holds out none.
        seed: of the choice of validation videos.

    Raises:
        DataError: a table, a column or a sound is missing, a time or a class number is none, a class has two names,
            two HDF5 files, or HDF5 without h5py.
        AudioError: the HDF5 file cannot be read.
    """
    root = Path(root)
    for name in (TRAIN_TABLE, VALIDATION_TABLE):
        if not (root / name).is_file():
            raise DataError(f"{root / name}: no such file; expected EPIC-SOUNDS' layout, {EPIC_SOUNDS_LAYOUT}")
    sounds = _Sounds(root)
    names: dict[int, str] = {}
    # Labels are the official class numbers until both tables are read.
    tables = [_read(root / name, sounds, names) for name in (TRAIN_TABLE, VALIDATION_TABLE)]
    label_of = {number: label for label, number in enumerate(sorted(names))}
    training, test = ([replace(clip, labels=(label_of[clip.labels[0]],)) for clip in clips] for clips in tables)
    train, held_out = stratified_split(training, validation, seed)
    classes = tuple(names[number] for number in label_of)
    name = printable(root.resolve().name)
    return AudioSplits(name, classes, train, held_out, tuple(test), sounds.left_out.lines())


class _Sounds:
    """Where the sound of an annotation is."""

    def __init__(self, root: Path) -> None:
        archives = [path for ending in ("hdf5", "h5") for path in matching(root, f"*.{ending}")]
        if len(archives) > 1:
            raise DataError(f"{root}: two HDF5 files, {archives[0].name} and {archives[1].name}; leave one here")
        self.archive = archives[0] if archives else None
        self.tracks = hdf5_tracks(archives[0]) if archives else {}
        self.left_out = LeftOut()
        suffixes = sound_suffixes()
        # Of a sound in several formats, one that can be read.
        readable_last = sorted(sounds_below(root, self.left_out), key=lambda path: path.suffix.lower() in suffixes)
        self.files = {path.stem: path for path in readable_last}

    def clip(self, annotation: str, video: str, label: int, start: float, stop: float) -> Clip | None:
        if self.archive and video in self.tracks:
            return Clip(self.archive, (label,), video, start, stop, track=video)
        if annotation in self.files:
            return Clip(self.files[annotation], (label,), video)
        return Clip(self.files[video], (label,), video, start, stop) if video in self.files else None


def _read(table: Path, sounds: _Sounds, names: dict[int, str]) -> list[Clip]:
    """The clips of a table, labelled by official class numbers; the classes' names are added to `names`."""
    clips = []
    for where, row in read_table(table, _COLUMNS):
        number = integer(row["class_id"], "class_id", where)
        if (name := names.setdefault(number, row["class"])) != row["class"]:
            raise DataError(f"{where}: class_id {number} is {row['class']!r} here and {name!r} above; correct one")
        start, stop = _seconds(row["start_timestamp"], where), _seconds(row["stop_timestamp"], where)
        if stop <= start:
            raise DataError(f"{where}: stops at {row['stop_timestamp']}, before it starts; correct the times")
        annotation, video = row["annotation_id"], row["video_id"]
        if (clip := sounds.clip(annotation, video, number, start, stop)) is None:
            raise DataError(
                f"{where}: no sound of video {video} in {table.parent}; expected it in an HDF5 file, as {video}.wav or "
                f"as {annotation}.wav"
            )
        clips.append(clip)
    return clips


def _seconds(timestamp: str, where: str) -> float:
    """`HH:MM:SS.mmm` in seconds."""
    try:
        hours, minutes, seconds = timestamp.split(":")
        time = 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except (ValueError, OverflowError):
        time = math.nan
    if not math.isfinite(time):
        raise DataError(f"{where}: time {timestamp!r}; expected HH:MM:SS.mmm")
    return time
