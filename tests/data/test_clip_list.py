"""Lists of clips as arrays say what tuples of clips say."""

import json
import os
import pickle
from pathlib import Path, PurePath

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastloaa.audio.formats import suffix
from fastloaa.data import AudioSplits, Clip, ClipList, ClipWriter, DataError, load_splits
from fastloaa.data.clip_list import join
from fastloaa.data.sounds import Files

NAMES = st.text(st.characters(exclude_characters="\0/", exclude_categories=()), min_size=1, max_size=6)
NAMES = NAMES.filter(lambda name: name not in (".", "..") and _encodes(name))


def _encodes(name: str) -> bool:
    """Bytes of file names that are no UTF-8 are kept; other halves of surrogate pairs name no file."""
    try:
        return os.fsdecode(os.fsencode(name)) == name
    except UnicodeEncodeError:
        return False


@st.composite
def clips(draw: st.DrawFn) -> Clip:
    start = draw(st.sampled_from([0.0, 0.5, 2.0]))
    return Clip(
        path=Path(*draw(st.lists(NAMES, min_size=1, max_size=3))),
        labels=tuple(draw(st.lists(st.integers(0, 5), max_size=3))),
        group=draw(st.none() | NAMES),
        start=start,
        stop=draw(st.sampled_from([None, start + 1.0])),
        track=draw(st.none() | NAMES),
    )


@given(given=st.lists(clips(), max_size=8), data=st.data())
def test_it_is_a_sequence_of_the_same_clips(given: list[Clip], data: st.DataObject) -> None:
    made = ClipList.of(given)
    assert list(made) == given
    assert made == given == made
    assert pickle.loads(pickle.dumps(made)) == made  # noqa: S301 (for workers that are spawned)
    one = data.draw(st.slices(len(given)))
    assert list(made[one]) == given[one]
    rows = data.draw(st.lists(st.integers(0, len(given) - 1), max_size=9)) if given else []
    assert list(made.take(rows)) == [given[row] for row in rows]
    assert list(join([made[:2], made[2:], made])) == given + given
    assert list(made + given) == given + given
    counts = [sum(clip.labels.count(label) for clip in given) for label in range(7)]
    assert made.label_counts(7).tolist() == counts
    ordered = sorted(given, key=lambda c: (os.fsencode(c.path), os.fsencode(c.track or ""), c.start))
    assert list(made.in_order()) == ordered
    sound = [(c.path, c.track, c.start, c.stop) for c in given]
    keys = made.keys()
    assert all(keys[i] == keys[j] for i, a in enumerate(sound) for j, b in enumerate(sound) if a == b)
    assert len({made.take([row]).digest() for row in range(len(given))}) == len(set(given))


@given(one=st.lists(clips(), max_size=3), other=st.lists(clips(), max_size=3))
def test_lists_are_equal_and_have_one_digest_if_their_clips_are(one: list[Clip], other: list[Clip]) -> None:
    left, right = ClipList.of(one), ClipList.of(other)
    assert (left == right) == (one == other) == (left.digest() == right.digest())


def test_an_index_beyond_the_end() -> None:
    made = ClipList.of([Clip(Path("a.wav"), (0,))])
    assert made[-1] == made[0]
    for index in (1, -2):
        with pytest.raises(IndexError):
            made[index]


def test_it_is_small() -> None:
    """Per clip little more than its path: no objects."""
    writer = ClipWriter()
    for number in range(1000):
        writer.add(f"/data/audio/{number:011d}.wav", (number % 5, 5))
    made = writer.done()
    arrays = [made.paths.values, made.paths.ends, made.labels.values, made.labels.ends]
    assert sum(array.nbytes for array in arrays) <= 1000 * (27 + 8 + 8 + 8)
    assert made.groups is made.starts is made.stops is made.tracks is None
    assert all(isinstance(array, np.ndarray) and array.dtype != object for array in arrays)


def test_names_of_one_file_are_one_sound() -> None:
    writer = ClipWriter()
    for path in ("a/./b.wav", "./a/b.wav", "a//b.wav"):
        writer.add(path, (0,))
    (path,) = {clip.path for clip in writer.done()}
    assert path == Path("a/b.wav")
    with pytest.raises(DataError, match=r"a/b\.wav is in train and again in train; list it once"):
        AudioSplits("x", ("a", "b"), writer.done(), (), [Clip(Path("c.wav"), (0,))])
    with pytest.raises(DataError, match="start < stop"):
        writer.add("a.wav", (0,), start=2.0, stop=1.0)


@given(name=st.lists(NAMES, min_size=1, max_size=2).map("/".join))
def test_suffixes_are_those_of_paths(name: str) -> None:
    if not name.endswith("."):  # of which no format's name ends
        assert suffix(name) == PurePath(name).suffix.lower()


def test_a_folder_that_is_asked_for_much_is_listed(tmp_path: Path) -> None:
    for number in range(0, 600, 2):
        (tmp_path / f"{number}.wav").touch()
    (tmp_path / "folder.wav").mkdir()
    files = Files()
    assert [files.has(f"{tmp_path}/{number}.wav") for number in range(600)] == [True, False] * 300
    assert not files.has(f"{tmp_path}/folder.wav")
    assert not files.has(f"{tmp_path}/{'x' * 300}.wav")
    (tmp_path / "599.wav").touch()  # it came later
    assert files.has(f"{tmp_path}/599.wav")


def test_a_long_list_in_which_one_file_is_missing(tmp_path: Path) -> None:
    (tmp_path / "class_labels_indices.csv").write_text("index,mid,display_name\n0,/m/a,dog\n1,/m/b,rain\n")
    for number in range(500):
        (tmp_path / f"{number}.wav").touch()
    entries = [{"wav": f"{number}.wav", "labels": "/m/a,/m/b", "more": {"wav": 1}} for number in range(500)]
    (tmp_path / "x_train.json").write_text(json.dumps({"data": entries[:499]}))
    (tmp_path / "x_eval.json").write_text(json.dumps({"data": entries[499:]}))
    splits = load_splits(tmp_path)
    assert len(splits.train) == 499
    assert Clip(tmp_path / "498.wav", (0, 1)) in splits.train
    assert splits.multi_label
    (tmp_path / "444.wav").unlink()
    with pytest.raises(DataError, match=r"x_train\.json entry 444: no file .*444\.wav"):
        load_splits(tmp_path)
