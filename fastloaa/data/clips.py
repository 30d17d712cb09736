"""Clips, the splits of a data set, and how clips are divided between them."""

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from fastloaa.data.clip import Clip, DataError
from fastloaa.data.clip_list import ClipList, join

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class AudioSplits:
    """A data set: its classes, in the order of the labels, and its three splits, of which validation may be empty.

    Attributes:
        train, validation, test: kept as `ClipList`s, whatever they are given as.
        left_out: what was found or listed and is in no split, a line for each reason, with number and first names.
        fold: which one is tested on, None for sets that have no folds.

    Raises:
        DataError: train or test is empty, a class name or a recording appears twice, a segment is in two splits, a
            clip has no label or one that is not a class, or a group is in two splits.
    """

    name: str
    classes: tuple[str, ...]
    train: Sequence[Clip]
    validation: Sequence[Clip]
    test: Sequence[Clip]
    left_out: tuple[str, ...] = ()
    fold: int | None = None

    def __post_init__(self) -> None:
        for split in SPLITS:
            object.__setattr__(self, split, ClipList.of(getattr(self, split)))
        for split in ("train", "test"):
            if not getattr(self, split):
                raise DataError(f"{self.name}: the {split} split is empty; give it at least one clip")
        for category, count in Counter(self.classes).items():
            if count > 1:
                raise DataError(f"{self.name}: class {category!r} is named {count} times; expected distinct names")
        self._check_labels()
        self._check_sounds()
        self._check_groups()

    def _check_labels(self) -> None:
        for split in SPLITS:
            clips: ClipList = getattr(self, split)
            without = clips.labels.lengths == 0
            if without.any():
                clip = clips[int(without.argmax())]
                raise DataError(f"{self.name}: {clip} has no label; give it one of {len(self.classes)} classes")
            wrong = (clips.labels.values < 0) | (clips.labels.values >= len(self.classes))
            if wrong.any():
                place = int(wrong.argmax())
                clip = clips[int(np.searchsorted(clips.labels.ends, place, side="right"))]
                raise DataError(
                    f"{self.name}: {clip} has label {clips.labels.values[place]}; expected 0 to "
                    f"{len(self.classes) - 1}, for {len(self.classes)} classes"
                )

    def _check_sounds(self) -> None:
        """No sound is in two splits, and none that is whole is listed twice."""
        keys = [getattr(self, split).keys() for split in SPLITS]
        found, counts = np.unique(np.concatenate(keys), return_counts=True)
        twice = found[counts > 1]  # or alike by chance, so the few clips are looked at
        split_of_sound: dict[tuple[Path, str | None, float, float | None], str] = {}
        for split, own in zip(SPLITS, keys, strict=True):
            for row in np.flatnonzero(np.isin(own, twice)).tolist() if len(twice) else ():
                clip = getattr(self, split)[row]
                sound = (clip.path, clip.track, clip.start, clip.stop)
                other = split_of_sound.get(sound)
                # EPIC-SOUNDS has a segment that was annotated twice; no segment must be in two splits, though.
                if other and (clip.is_whole or other != split):
                    raise DataError(f"{self.name}: {clip} is in {other} and again in {split}; list it once")
                split_of_sound[sound] = split

    def _check_groups(self) -> None:
        split_of_group: dict[bytes, str] = {}
        for split in SPLITS:
            clips: ClipList = getattr(self, split)
            for row, group in enumerate(() if clips.groups is None else clips.groups.texts()):
                if group and (other := split_of_group.setdefault(group, split)) != split:
                    raise DataError(
                        f"{self.name}: group {clips[row].group!r} is in {other} and, with {clips[row]}, in {split}; "
                        "keep a group in one split"
                    )

    @property
    def multi_label(self) -> bool:
        """Whether some clip has several labels, which calls for binary losses and mean average precision."""
        return any((getattr(self, split).labels.lengths > 1).any() for split in SPLITS)

    @property
    def all_clips(self) -> ClipList:
        """Of all splits, one after the other."""
        return join([getattr(self, split) for split in SPLITS])

    def fingerprint(self) -> str:
        """SHA-256 over the classes and which clips are in which split, by path; not over the sounds themselves."""
        digests = [getattr(self, split).digest() for split in SPLITS]
        return hashlib.sha256(repr((self.classes, digests)).encode()).hexdigest()

    def summary(self) -> str:
        """One line: the name, the number of classes, the clips in each split, and what is left out."""
        return (
            f"{self.name}: {len(self.classes)} classes{', several to a clip' * self.multi_label}; "
            f"clips: {len(self.train)} train, {len(self.validation)} validation, {len(self.test)} test"
            f"{'; left out: ' if self.left_out else ''}{'; '.join(self.left_out)}"
        )


def stratified_split(clips: Iterable[Clip], fraction: float, seed: int) -> tuple[ClipList, ClipList]:
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
    ordered = ClipList.of(clips).in_order()
    if fraction == 0:
        return ordered, ordered[:0]
    groups: dict[tuple[bool, str], list[int]] = defaultdict(list)
    labels: list[tuple[int, ...]] = []
    for row, clip in enumerate(ordered):
        # The flag keeps a group named like some clip's path apart from that clip.
        groups[clip.group is not None, clip.group or f"{clip.path.as_posix()}{clip.track or ''}"].append(row)
        labels.append(clip.labels)
    order = sorted(groups)
    random.Random(seed).shuffle(order)
    held = _choose_groups([Counter(chain.from_iterable(labels[row] for row in groups[key])) for key in order], fraction)
    held_out = np.zeros(len(ordered), dtype=bool)
    for index in held:
        held_out[groups[order[index]]] = True
    return ordered.take(np.flatnonzero(~held_out)), ordered.take(np.flatnonzero(held_out))


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
