"""Batches of clips, past files that cannot be read."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from fastloaa.audio.decode import load_audio
from fastloaa.data import Batch, BrokenFiles, Clip, ClipDataset, DataError, collate, loader
from helpers.tones import write_tone


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    """Seven tones of different lengths and rates, three classes, the last clip of two."""
    labels = [(0,), (1,), (2,), (0,), (1,), (2,), (0, 2)]
    return [
        Clip(write_tone(tmp_path / f"{i}.wav", 300 + 100 * i, 0.03 + 0.01 * i, 8000 if i % 2 else 16000), label)
        for i, label in enumerate(labels)
    ]


@pytest.fixture
def broken(tmp_path: Path) -> list[Clip]:
    """One file of each kind that cannot be read."""
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("this is no sound\n")
    for name in ("cut.flac", "cut.wav"):
        os.truncate(write_tone(tmp_path / name, seconds=1.0), 9000)
    return [Clip(tmp_path / name, (1,)) for name in ("empty.wav", "text.wav", "cut.flac", "cut.wav", "gone.wav")]


def batches(clips: list[Clip], workers: int = 0, size: int = 3, **options: object) -> list[Batch]:
    dataset = ClipDataset(clips, 16000, 3, **options)
    return list(DataLoader(dataset, size, num_workers=workers, collate_fn=collate, drop_last=False))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_hold_what_single_files_hold(clips: list[Clip], workers: int) -> None:
    found = batches(clips, workers)
    assert [len(batch) for batch in found] == [3, 3, 1]
    row = iter(clips)
    for batch in found:
        assert batch.waveform.dtype == batch.targets.dtype == torch.float32
        assert batch.lengths.dtype == torch.int64
        assert batch.waveform.shape[1] == batch.lengths.max()
        assert batch.broken == ()
        for i in range(len(batch)):
            clip, length = next(row), int(batch.lengths[i])
            assert batch.paths[i] == str(clip.path)
            assert torch.equal(batch.waveform[i, :length], load_audio(clip.path, 16000))
            assert not batch.waveform[i, length:].any()
            assert batch.targets[i].tolist() == [float(label in clip.labels) for label in range(3)]
    assert next(row, None) is None


def test_long_clips_are_cut_at_the_end(clips: list[Clip]) -> None:
    (batch,) = batches(clips, size=7, max_seconds=0.05)
    assert batch.lengths.tolist() == [480, 640, 800, 800, 800, 800, 800]
    assert torch.equal(batch.waveform[6], load_audio(clips[6].path, 16000)[:800])


def test_windows_of_long_clips(clips: list[Clip]) -> None:
    """A share of what is too much is left out at the start, the rest at the end."""
    noise = np.random.default_rng(0).uniform(-1, 1, 1440)  # tones are the same everywhere
    soundfile.write(clips[6].path, noise, 16000)
    dataset = ClipDataset([*clips, Clip(clips[6].path, (0,), start=0.02)], 16000, 3, max_seconds=0.05)
    assert [dataset.is_cut(index) for index in range(8)] == [False] * 3 + [True] * 4 + [True]
    whole = load_audio(clips[6].path, 16000)  # 0.09 s
    for place, first in ((0.0, 0), (0.25, 160), (1.0, 640)):
        assert torch.equal(dataset[6, place].waveform, whole[first : first + 800])
    assert torch.equal(dataset[7, 0.5].waveform, whole[320 + 160 : 320 + 160 + 800])
    assert torch.equal(dataset[0, 0.7].waveform, dataset[0].waveform)  # short
    unlimited = ClipDataset(clips, 16000, 3)
    assert not unlimited.is_cut(6)
    assert torch.equal(unlimited[6, 0.7].waveform, whole)


def test_windows_of_broken_files(broken: list[Clip]) -> None:
    dataset = ClipDataset(broken, 16000, 3, max_seconds=0.05)
    for index in (0, 1, 4):  # of the two that are cut off, the window may be whole
        assert not dataset.is_cut(index)
        assert dataset[index, 0.5].waveform is None
        assert dataset[index, 0.5].error


def test_segments_are_read_padded_and_cut_like_files(tmp_path: Path) -> None:
    path = write_tone(tmp_path / "long.wav", seconds=1.0, rate=8000)
    segments = [Clip(path, (0, 2), start=0.25, stop=0.5), Clip(path, (1,), start=0.9, stop=2.0), Clip(path, (2,))]
    (batch,) = batches(segments, max_seconds=0.2)
    assert batch.lengths.tolist() == [3200, 1600, 3200]
    assert batch.targets.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 1]]
    assert torch.equal(batch.waveform[0], load_audio(path, 16000, 0.25, 0.5)[:3200])
    assert torch.equal(batch.waveform[1, :1600], load_audio(path, 16000, 0.9))
    assert not batch.waveform[1, 1600:].any()
    assert batch.paths == (f"{path} 0.25-0.5 s", f"{path} 0.9-2 s", str(path))


def test_a_segment_beyond_the_end_is_a_broken_clip(tmp_path: Path) -> None:
    path = write_tone(tmp_path / "short.wav", seconds=0.1)
    (batch,) = batches([Clip(path, (0,), start=0.5, stop=0.6), Clip(path, (1,))])
    assert batch.paths == (str(path),)
    assert batch.broken == (f"{path}: ends after 0.1 s, expected sound from 0.5 s; correct the times",)


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_files_are_left_out_named_once_and_counted(clips: list[Clip], broken: list[Clip], workers: int) -> None:
    mixed = [broken[0], clips[0], broken[1], clips[1], clips[2], broken[2], clips[3], *broken[3:]]
    count = BrokenFiles(len(mixed))
    for epoch in range(2):
        found = batches(mixed, workers, size=2)
        assert [path for batch in found for path in batch.paths] == [str(clip.path) for clip in clips[:4]]
        named = [error for batch in found for error in count.add(batch.broken, batch.broken_indices)]
        assert len(named) == (5 if epoch == 0 else 0)
        assert all(str(clip.path) in error and "\n" not in error for clip, error in zip(broken, named, strict=False))
    assert len(count) == 5
    assert count.summary().startswith("5 of 9 files could not be read: ")
    assert count.summary().endswith("; and 2 more")
    assert "\n" not in count.summary()


def test_a_batch_may_come_out_empty(broken: list[Clip]) -> None:
    (batch,) = batches(broken, size=5)
    assert len(batch) == 0
    assert not batch
    assert batch.waveform.shape == (0, 0)
    assert batch.lengths.shape == (0,)
    assert batch.targets.shape == (0, 3)
    assert len(batch.broken) == 5


def test_only_broken_files_are_an_error(broken: list[Clip]) -> None:
    count = BrokenFiles(len(broken))
    found = batches(broken, size=3)
    assert len(count.add(found[0].broken, found[0].broken_indices)) == 3
    with pytest.raises(DataError, match=r"^5 of 5 files could not be read: .*; none is left, check the data$"):
        count.add(found[1].broken, found[1].broken_indices)


def test_a_clip_is_broken_once_whatever_its_windows_say(clips: list[Clip], tmp_path: Path) -> None:
    """And each of several clips of one file is, though one line says it of all."""
    samples = np.full(3200, np.nan, np.float32)
    samples[:100] = 0.1
    soundfile.write(tmp_path / "nan.wav", samples, 16000, subtype="FLOAT")
    dataset = ClipDataset([Clip(tmp_path / "nan.wav", (0,)), *clips[:2]], 16000, 3, max_seconds=0.05)
    found = [collate([dataset[0, place], dataset[1]]) for place in (0.1, 0.5, 0.9)]
    assert len({batch.broken for batch in found}) == 3
    count = BrokenFiles(len(dataset))
    assert [count.add(batch.broken, batch.broken_indices) for batch in found] == [found[0].broken, (), ()]
    assert len(count) == 1

    gone = [Clip(tmp_path / "gone.wav", (0,), start=float(start), stop=start + 0.5) for start in range(3)]
    (batch,) = batches(gone)
    assert len(set(batch.broken)) == 1
    count = BrokenFiles(4)
    assert count.add(batch.broken, batch.broken_indices) == batch.broken[:1]
    assert count.summary() == f"3 of 4 files could not be read: {batch.broken[0]}"
    with pytest.raises(DataError, match="3 of 3 files could not be read"):
        BrokenFiles(3).add(batch.broken, batch.broken_indices)


def test_nothing_broken_is_nothing_to_say(clips: list[Clip]) -> None:
    count = BrokenFiles(len(clips))
    assert [count.add(batch.broken, batch.broken_indices) for batch in batches(clips)] == [(), (), ()]
    assert count.summary() == ""


def test_later_epochs_come_from_memory(clips: list[Clip]) -> None:
    dataset = ClipDataset(clips, 16000, 3)
    first = collate([dataset[i] for i in range(7)])
    for clip in clips:
        os.truncate(clip.path, 0)
    second = collate([dataset[i] for i in range(7)])
    assert torch.equal(first.waveform, second.waveform)
    assert second.broken == ()


def test_without_cache_every_epoch_decodes(clips: list[Clip]) -> None:
    dataset = ClipDataset(clips, 16000, 3, cache=False)
    assert dataset[0].error is None
    os.truncate(clips[0].path, 0)
    assert dataset[0].error is not None


def test_the_cache_stops_at_its_limit(clips: list[Clip], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "CACHE_BYTES", 4 * (480 + 640))  # the first two clips, to the byte
    dataset = ClipDataset(clips, 16000, 3)
    before = [dataset[i] for i in range(7)]
    for clip in clips:
        os.truncate(clip.path, 0)
    after = [dataset[i] for i in range(7)]
    assert [sample.error is None for sample in before] == [True] * 7
    assert [sample.error is None for sample in after] == [True, True] + [False] * 5


def test_a_cut_clip_takes_no_more_memory_than_its_samples(clips: list[Clip]) -> None:
    waveform = ClipDataset(clips, 16000, 3, max_seconds=0.01)[6].waveform
    assert waveform is not None
    assert waveform.untyped_storage().nbytes() == 160 * 4


def test_a_batch_moves_to_a_device(clips: list[Clip]) -> None:
    (batch,) = batches(clips[:3])
    moved = batch.to("meta")
    assert {moved.waveform.device.type, moved.lengths.device.type, moved.targets.device.type} == {"meta"}
    assert (moved.paths, moved.broken, moved.broken_indices) == (batch.paths, batch.broken, batch.broken_indices)
    assert batch.waveform.device.type == "cpu"


def test_arguments_that_leave_nothing_are_refused(clips: list[Clip]) -> None:
    with pytest.raises(DataError, match=r"^max_seconds=0 leaves no sample at 16000 Hz; give more, or None$"):
        ClipDataset(clips, 16000, 3, max_seconds=0)
    with pytest.raises(DataError, match=r"2\.wav has labels \(2,\); expected 0 to 1$"):
        ClipDataset(clips, 16000, 2)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_only_the_seconds_that_are_needed_are_decoded(rate: int, tmp_path: Path) -> None:
    """Of a recording of many hours, a file with a hole, which takes no space."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 2 * rate)
    path = tmp_path / "short.wav"
    soundfile.write(path, noise, rate)
    content = path.read_bytes()
    long = tmp_path / "long.wav"
    with long.open("wb") as file:
        size = 0x90000000  # more than is read at once
        file.write(content[:4] + (size + 36).to_bytes(4, "little") + content[8:40] + size.to_bytes(4, "little"))
        file.write(content[44:])
        file.truncate(44 + size)
    data = ClipDataset([Clip(path, (0,)), Clip(long, (0,)), Clip(long, (0,), start=0.5)], 16000, 1, max_seconds=1.0)
    assert data[0].error is data[1].error is data[2].error is None
    torch.testing.assert_close(data[1].waveform, data[0].waveform)
    torch.testing.assert_close(data[2].waveform[300:], load_audio(path, 16000)[8300:24000])
    assert data.is_cut(1)
    assert len(data[1, 1.0].waveform) == 16000
