"""Records of a data set and the stratified split."""

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastloaa.data import AudioSplits, Clip, DataError, stratified_split


def clip(name: str, *labels: int, group: str | None = None) -> Clip:
    return Clip(Path(name), labels, group)


def splits(**changes: object) -> AudioSplits:
    fields: dict = {
        "name": "set",
        "classes": ("cat", "dog"),
        "train": (clip("a.wav", 0), clip("b.wav", 1)),
        "validation": (),
        "test": (clip("c.wav", 0),),
    }
    return AudioSplits(**fields | changes)


def test_summary_is_one_line_with_every_count() -> None:
    assert splits().summary() == "set: 2 classes; clips: 2 train, 0 validation, 1 test"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": ()}, "set: the train split is empty; give it at least one clip"),
        ({"test": ()}, "set: the test split is empty; give it at least one clip"),
        ({"classes": ("cat", "cat")}, "set: class 'cat' is named 2 times; expected distinct names"),
        ({"test": (clip("a.wav", 0),)}, "set: a.wav is in train and again in test; list it once"),
        ({"test": (clip("c.wav", 0), clip("c.wav", 1))}, "set: c.wav is in test and again in test; list it once"),
        ({"test": (clip("c.wav", 2),)}, "set: c.wav has label 2; expected 0 to 1, for 2 classes"),
        ({"validation": (clip("c.wav", -1),)}, "set: c.wav has label -1; expected 0 to 1, for 2 classes"),
        ({"test": (clip("c.wav"),)}, "set: c.wav has no label; give it one of 2 classes"),
        (
            {"train": (clip("a.wav", 0, group="g"),), "test": (clip("c.wav", 0, group="g"),)},
            "set: group 'g' is in train and, with c.wav, in test; keep a group in one split",
        ),
    ],
)
def test_what_is_no_data_set_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(DataError) as error:
        splits(**changes)
    assert str(error.value) == message


def test_a_clip_may_have_several_labels_and_a_split_several_clips_of_a_group() -> None:
    made = splits(train=(clip("a.wav", 0, 1, group="g"), clip("b.wav", 1, group="g")))
    assert made.train[0].labels == (0, 1)


def test_clips_are_named_with_their_segment() -> None:
    assert str(clip("a.wav", 0)) == "a.wav"
    assert str(Clip(Path("a.wav"), (0,), start=1.5)) == "a.wav 1.5- s"
    assert str(Clip(Path("a.h5"), (0,), stop=2.25, track="P01")) == "a.h5[P01] 0-2.25 s"


@pytest.mark.parametrize(("start", "stop"), [(-0.1, None), (1.0, 1.0), (2.0, 1.0), (float("nan"), None)])
def test_a_segment_has_a_length(start: float, stop: float | None) -> None:
    with pytest.raises(DataError, match=r"^a\.wav .* s: expected a segment with 0 <= start < stop; correct its times$"):
        Clip(Path("a.wav"), (0,), start=start, stop=stop)


def test_segments_of_one_recording_may_overlap_and_repeat_but_not_across_splits() -> None:
    first, second = (Clip(Path("a.wav"), (0,), start=start, stop=2.0) for start in (0.0, 1.0))
    assert len(splits(train=(first, second, first), test=(clip("c.wav", 0),)).train) == 3
    with pytest.raises(DataError, match=r"^set: a\.wav 1-2 s is in train and again in test; list it once$"):
        splits(train=(first, second), test=(second,))


def test_several_labels_on_one_clip_make_a_multi_label_set() -> None:
    assert not splits().multi_label
    multi_label = splits(test=(clip("c.wav", 0, 1),), left_out=("links that lead nowhere: 3 (a, b, c)",))
    assert multi_label.multi_label
    assert multi_label.summary() == (
        "set: 2 classes, several to a clip; clips: 2 train, 0 validation, 1 test; "
        "left out: links that lead nowhere: 3 (a, b, c)"
    )


def test_segments_of_a_recording_stay_together_without_a_group() -> None:
    clips = [Clip(Path(f"{r}.h5"), (0,), start=s, stop=s + 1, track=t) for r in "ab" for t in "xy" for s in (2.0, 1.0)]
    kept, held_out = stratified_split(clips, 0.25, seed=1)
    assert len(held_out) == 2
    assert len({(c.path, c.track) for c in held_out}) == 1
    assert [c.start for c in held_out] == [1.0, 2.0]
    assert Counter(kept + held_out) == Counter(clips)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_an_impossible_fraction_is_refused(fraction: float) -> None:
    with pytest.raises(DataError, match=r"cannot be held out; expected 0 <= fraction < 1$"):
        stratified_split([clip("a.wav", 0)], fraction, seed=0)


def test_every_class_gives_its_share() -> None:
    clips = [clip(f"{label}-{i:02}.wav", label) for label, count in enumerate([10, 20, 4]) for i in range(count)]
    kept, held_out = stratified_split(clips, 0.2, seed=3)
    assert Counter(c.labels[0] for c in held_out) == {0: 2, 1: 4, 2: 1}
    assert sorted(kept + held_out, key=lambda c: c.path) == clips


def test_nothing_is_held_out_of_a_class_with_one_group() -> None:
    clips = [clip("a.wav", 0, group="g"), clip("b.wav", 0, group="g"), clip("c.wav", 1), clip("d.wav", 1)]
    for seed in range(5):
        kept, held_out = stratified_split(clips, 0.5, seed)
        assert {c.path.name for c in kept} >= {"a.wav", "b.wav"}
        assert len(held_out) == 1


def test_zero_holds_out_nothing() -> None:
    clips = (clip("a.wav", 0), clip("b.wav", 0))
    assert stratified_split(clips, 0.0, seed=0) == (clips, ())


def test_a_large_group_does_not_crowd_out_the_share() -> None:
    clips = [clip(f"big-{i}.wav", 0, group="big") for i in range(9)] + [clip("small.wav", 0, group="small")]
    for seed in range(10):
        for fraction in (0.01, 0.1):
            assert [c.group for c in stratified_split(clips, fraction, seed)[1]] == ["small"]


def test_a_group_named_like_a_file_is_another_group() -> None:
    clips = [clip("a.wav", 0), clip("b.wav", 0, group="a.wav")]
    assert len(stratified_split(clips, 0.5, seed=0)[1]) == 1


def test_seeds_differ_and_file_order_does_not_matter() -> None:
    clips = [clip(f"{i:02}.wav", i % 2) for i in range(40)]
    shuffled = random.Random(1).sample(clips, len(clips))
    assert stratified_split(clips, 0.25, seed=7) == stratified_split(shuffled, 0.25, seed=7)
    assert len({tuple(stratified_split(clips, 0.25, seed)[1]) for seed in range(10)}) > 5


def test_another_process_with_other_hashes_draws_the_same() -> None:
    code = (
        "from pathlib import Path; from fastloaa.data.clips import Clip, stratified_split; "
        "clips = [Clip(Path(f'{i}.wav'), (i % 3,), f'g{i % 11}') for i in range(50)]; "
        "print(*(clip.path for clip in stratified_split(clips, 0.3, 5)[1]))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    clips = [Clip(Path(f"{i}.wav"), (i % 3,), f"g{i % 11}") for i in range(50)]
    assert other.stdout.split() == [c.path.name for c in stratified_split(clips, 0.3, 5)[1]]


grouped = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=1, max_size=60)


@given(grouped, st.floats(0.01, 0.9), st.integers(0, 1000))
def test_groups_stay_whole_and_every_class_on_both_sides(
    pairs: list[tuple[int, int]], fraction: float, seed: int
) -> None:
    clips = [clip(f"{i}.wav", label, group=f"{label}-{group}") for i, (label, group) in enumerate(pairs)]
    kept, held_out = stratified_split(clips, fraction, seed)
    assert Counter(kept + held_out) == Counter(clips)
    assert not {c.group for c in kept} & {c.group for c in held_out}
    for label in {c.labels[0] for c in clips}:
        groups = {c.group for c in clips if c.labels == (label,)}
        assert any(c.labels == (label,) for c in kept)
        assert any(c.labels == (label,) for c in held_out) is (len(groups) > 1)


@given(grouped, st.floats(0.01, 0.9), st.integers(0, 1000))
def test_groups_across_classes_stay_whole_and_no_class_leaves_training(
    pairs: list[tuple[int, int]], fraction: float, seed: int
) -> None:
    clips = [clip(f"{i}.wav", label, (label + 1) % 4, group=f"{group}") for i, (label, group) in enumerate(pairs)]
    kept, held_out = stratified_split(clips, fraction, seed)
    assert Counter(kept + held_out) == Counter(clips)
    assert not {c.group for c in kept} & {c.group for c in held_out}
    assert {label for c in kept for label in c.labels} == {label for c in clips for label in c.labels}


def test_voices_that_say_every_word_are_split_by_voice() -> None:
    clips = [clip(f"{word}/{voice}.wav", word, group=f"v{voice}") for word in range(3) for voice in range(10)]
    _, held_out = stratified_split(clips, 0.2, seed=0)
    assert len({c.group for c in held_out}) == 2
    assert Counter(c.labels[0] for c in held_out) == {0: 2, 1: 2, 2: 2}
