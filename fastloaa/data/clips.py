"""Clips, the splits of a data set, and how clips are divided between them."""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from fastloaa.errors import FastloaaError
from fastloaa.text import printable

SPLITS = ("train", "validation", "test")


class DataError(FastloaaError, ValueError):
    """A data set that cannot be used; the message is one line that says what was found, expected and to do."""


@dataclass(frozen=True, slots=True)  # AudioSet has two million
class Clip:
    """One recording, or a segment of one.

    Attributes:
        path: the sound file, or an HDF5 file of sounds.
        labels: indices into the data set's classes; one for single-label sets.
        group: what it shares with clips that must stay on its side of a split (a source recording, a voice).
        start, stop: where the segment begins and ends, in seconds; a stop of None is the end of the recording.
        track: which sound of an HDF5 file, see `fastloaa.data.hdf5`; None for sound files.

    Raises:
        DataError: a segment that ends before it begins.
    """

    path: Path
    labels: tuple[int, ...]
    group: str | None = None
    start: float = 0.0
    stop: float | None = None
    track: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.start < (math.inf if self.stop is None else self.stop):
            raise DataError(f"{self}: expected a segment with 0 <= start < stop; correct its times")

    def __str__(self) -> str:
        """The path as text, with track and segment if it has them: `EPIC_audio.hdf5[P01_01] 2.069-2.993 s`."""
        track = "" if self.track is None else f"[{self.track}]"
        stop = "" if self.stop is None else f"{self.stop:g}"
        return f"{printable(self.path)}{track}" + ("" if self.is_whole else f" {self.start:g}-{stop} s")

    @property
    def is_whole(self) -> bool:
        """Whether the clip is all of its recording."""
        return self.start == 0 and self.stop is None


@dataclass(frozen=True)
class AudioSplits:
    """A data set: its classes, in the order of the labels, and its three splits, of which validation may be empty.

    Attributes:
        left_out: what was found or listed and is in no split, a line for each reason, with number and first names.

    Raises:
        DataError: train or test is empty, a class name or a recording appears twice, a segment is in two splits, a
            clip has no label or one that is not a class, or a group is in two splits.
    """

    name: str
    classes: tuple[str, ...]
    train: tuple[Clip, ...]
    validation: tuple[Clip, ...]
    test: tuple[Clip, ...]
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for split in ("train", "test"):
            if not getattr(self, split):
                raise DataError(f"{self.name}: the {split} split is empty; give it at least one clip")
        for category, count in Counter(self.classes).items():
            if count > 1:
                raise DataError(f"{self.name}: class {category!r} is named {count} times; expected distinct names")
        split_of_sound: dict[tuple[Path, str | None, float, float | None], str] = {}
        split_of_group: dict[str, str] = {}
        for split in SPLITS:
            for clip in getattr(self, split):
                self._check_labels(clip)
                sound = (clip.path, clip.track, clip.start, clip.stop)
                other = split_of_sound.get(sound)
                # EPIC-SOUNDS has a segment that was annotated twice; no segment must be in two splits, though.
                if other and (clip.is_whole or other != split):
                    raise DataError(f"{self.name}: {clip} is in {other} and again in {split}; list it once")
                split_of_sound[sound] = split
                if clip.group is not None and (other := split_of_group.setdefault(clip.group, split)) != split:
                    raise DataError(
                        f"{self.name}: group {clip.group!r} is in {other} and, with {clip}, in {split}; "
                        "keep a group in one split"
                    )

    def _check_labels(self, clip: Clip) -> None:
        if not clip.labels:
            raise DataError(f"{self.name}: {clip} has no label; give it one of {len(self.classes)} classes")
        for label in clip.labels:
            if not 0 <= label < len(self.classes):
                raise DataError(
                    f"{self.name}: {clip} has label {label}; expected 0 to {len(self.classes) - 1}, "
                    f"for {len(self.classes)} classes"
                )

    @property
    def multi_label(self) -> bool:
        """Whether some clip has several labels, which calls for binary losses and mean average precision."""
        return any(len(clip.labels) > 1 for split in SPLITS for clip in getattr(self, split))

    def summary(self) -> str:
        """One line: the name, the number of classes, the clips in each split, and what is left out."""
        return (
            f"{self.name}: {len(self.classes)} classes{', several to a clip' * self.multi_label}; "
            f"clips: {len(self.train)} train, {len(self.validation)} validation, {len(self.test)} test"
            f"{'; left out: ' if self.left_out else ''}{'; '.join(self.left_out)}"
        )


def stratified_split(clips: Iterable[Clip], fraction: float, seed: int) -> tuple[tuple[Clip, ...], tuple[Clip, ...]]:
    """Hold out a fraction of every class, at random, with each group kept whole.

    A class in two groups or more loses at least one to the held-out side; the kept side always retains one. (Where
    groups span several classes these can contradict each other, and the kept side wins.) The same clips, fraction and
    seed give the same split on any platform, whatever order the clips come in.

    Args:
        clips: without a group, a recording is a group of its own, with all its segments.
        fraction: of each class's clips to hold out, 0 <= fraction < 1; met as closely as whole groups allow.
        seed: of the random choice.

    Returns:
        (kept, held out), each ordered by path and time.

    Raises:
        DataError: a fraction outside [0, 1).
    """
    if not 0 <= fraction < 1:
        raise DataError(f"a fraction of {fraction} cannot be held out; expected 0 <= fraction < 1")
    ordered = sorted(clips, key=lambda clip: (clip.path.as_posix(), clip.track or "", clip.start))
    if fraction == 0:
        return tuple(ordered), ()
    groups: dict[tuple[bool, str], list[Clip]] = defaultdict(list)
    for clip in ordered:
        # The flag keeps a group named like some clip's path apart from that clip.
        groups[clip.group is not None, clip.group or f"{clip.path.as_posix()}{clip.track or ''}"].append(clip)
    order = sorted(groups)
    random.Random(seed).shuffle(order)
    held = _choose_groups(
        [Counter(chain.from_iterable(clip.labels for clip in groups[key])) for key in order], fraction
    )
    held_out = {clip for index in held for clip in groups[order[index]]}
    return (
        tuple(clip for clip in ordered if clip not in held_out),
        tuple(clip for clip in ordered if clip in held_out),
    )


def _choose_groups(groups: Sequence[Counter[int]], fraction: float) -> set[int]:
    """Indices of groups, each given as its number of clips per class, that hold out `fraction` of every class."""
    members: dict[int, list[int]] = defaultdict(list)  # class -> groups that have it
    for index, counts in enumerate(groups):
        for label in counts:
            members[label].append(index)
    held: set[int] = set()
    held_clips: Counter[int] = Counter()
    kept_groups = Counter({label: len(indices) for label, indices in members.items()})

    def hold(index: int) -> None:
        held.add(index)
        held_clips.update(groups[index])
        kept_groups.subtract(groups[index].keys())

    def free(label: int) -> list[int]:
        """Groups of the class that can go without taking any class's last group from the kept side."""
        return [i for i in members[label] if i not in held and all(kept_groups[other] > 1 for other in groups[i])]

    for label in sorted(members, key=lambda label: (len(members[label]), label)):  # classes with least choice first
        wanted = fraction * sum(groups[index][label] for index in members[label])
        for index in free(label):
            still_free = all(kept_groups[other] > 1 for other in groups[index])
            missing = wanted - held_clips[label]
            if still_free and abs(missing - groups[index][label]) < abs(missing):
                hold(index)
        if not held_clips[label] and (rest := free(label)):
            hold(min(rest, key=lambda index: groups[index][label]))
    return held
