"""Synthesised spoken words."""

import os
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from torchaudio.compliance.kaldi import fbank

from fastloaa.data import COMMANDS, PRETRAIN_WORDS, Clip, DataError, draw_voices, load_folder, synthesise_words, words
from fastloaa.files.locks import LockedError

WORDS = ("yes", "stop", "paper")  # espeak starts a "p" with 60 ms of silence
VOICES = 20


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesise_words(tmp_path_factory.mktemp("words") / "spoken", WORDS, VOICES, seed=1)


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def log_mel(clip: Clip) -> torch.Tensor:
    """`[frames, 40]` in dB, the mean of each file at 0, by torchaudio."""
    waveform, rate = soundfile.read(clip.path, dtype="float32")
    mel = fbank(torch.from_numpy(waveform)[None] * 2**15, num_mel_bins=40, sample_frequency=rate) * 10 / np.log(10)
    return mel - mel.mean()


def test_the_words_are_those_of_speech_commands_and_thirty_others() -> None:
    speech_commands = {
        *("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"),
        *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
        *("bed", "bird", "cat", "dog", "happy", "house", "marvin", "sheila", "tree", "wow"),
        *("backward", "forward", "follow", "learn", "visual"),
    }
    assert len(COMMANDS) == 10
    assert set(COMMANDS) < speech_commands
    assert len(set(PRETRAIN_WORDS)) == 30
    assert not set(PRETRAIN_WORDS) & speech_commands


def test_sixty_voices_have_sixty_timbres_and_three_splits() -> None:
    voices = draw_voices(60, seed=2)
    assert len({voice.variant for voice in voices}) == 60
    assert [sum(voice.split == split for voice in voices) for split in ("train", "validation", "test")] == [42, 6, 12]
    assert len({(voice.accent, voice.pitch, voice.rate) for voice in voices}) > 50
    assert {voice.accent for voice in voices} == set(words.ACCENTS)


def test_more_voices_keep_every_timbre_in_one_split() -> None:
    voices = draw_voices(250, seed=3)
    assert len({voice.name for voice in voices}) == 250
    assert len({(voice.variant, voice.split) for voice in voices}) == 60


def test_a_shorter_draw_begins_a_longer_one() -> None:
    assert draw_voices(40, seed=4) == draw_voices(60, seed=4)[:40]
    assert draw_voices(40, seed=4) != draw_voices(40, seed=5)


def test_five_voices_fill_three_splits() -> None:
    assert {voice.split for voice in draw_voices(5)} == {"train", "validation", "test"}
    with pytest.raises(DataError, match=r"^voices=4 do not fill three splits; expected at least 5$"):
        draw_voices(4)


def test_every_voice_says_every_word_and_test_voices_are_unseen_in_training(spoken: Path) -> None:
    splits = load_folder(spoken)
    assert splits.classes == tuple(sorted(WORDS))
    assert [len(split) for split in (splits.train, splits.validation, splits.test)] == [14 * 3, 2 * 3, 4 * 3]
    train, validation, test = (
        {clip.path.stem.split("-")[0] for clip in split} for split in (splits.train, splits.validation, splits.test)
    )
    assert [len(train), len(validation), len(test)] == [14, 2, 4]
    assert not train & test
    assert not train & validation
    assert not validation & test


def test_clips_are_trimmed_words_at_a_level(spoken: Path) -> None:
    peaks = []
    for path in spoken.glob("*/*.wav"):
        information = soundfile.info(path)
        assert (information.samplerate, information.channels, information.subtype) == (16000, 1, "PCM_16")
        assert 0.2 <= information.duration <= 1.2
        waveform = np.abs(soundfile.read(path)[0])
        loud = np.flatnonzero(waveform > 0.0102 * waveform.max())
        assert loud[0] < 0.03 * 16000
        assert loud[-1] > len(waveform) - 0.03 * 16000
        assert np.sqrt(np.mean(waveform**2)) > 0.02 * waveform.max()
        peaks.append(20 * np.log10(waveform.max()))
    assert len(peaks) == VOICES * len(WORDS)
    assert -12.1 < min(peaks) < -9 < -4 < max(peaks) < -0.9


def test_any_two_voices_differ_in_spectrum(spoken: Path) -> None:
    splits = load_folder(spoken)
    spectra: dict[str | None, list[NDArray]] = {}
    for clip in sorted(splits.train + splits.validation + splits.test, key=lambda clip: clip.labels):
        spectra.setdefault(clip.group, []).append(log_mel(clip).mean(0).numpy())
    assert len(spectra) == VOICES
    for (a, one), (b, other) in combinations(spectra.items(), 2):
        assert np.sqrt(np.mean((np.array(one) - np.array(other)) ** 2)) > 1.0, (a, b)  # dB


def test_words_are_recognised_in_unseen_voices(spoken: Path) -> None:
    """By the nearest of the words' mean spectrograms, which know nothing of speech: by chance, 1 in 3 is right."""
    splits = load_folder(spoken)

    def picture(clip: Clip) -> torch.Tensor:
        return torch.nn.functional.interpolate(log_mel(clip).T[None], size=16)[0].flatten()

    means = torch.stack(
        [torch.stack([picture(clip) for clip in splits.train if clip.labels == (label,)]).mean(0) for label in range(3)]
    )
    unseen = splits.validation + splits.test
    right = sum(int(torch.cdist(picture(clip)[None], means).argmin()) == clip.labels[0] for clip in unseen)
    assert right >= 0.8 * len(unseen)


def test_the_same_settings_give_the_same_bytes(spoken: Path, tmp_path: Path) -> None:
    assert files(synthesise_words(tmp_path / "again", WORDS, VOICES, seed=1)) == files(spoken)
    assert files(synthesise_words(tmp_path / "other", WORDS, VOICES, seed=2)).keys() != files(spoken).keys()


def test_a_complete_folder_is_used_without_synthesis(spoken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(words, "Espeak")
    before = files(spoken)
    assert synthesise_words(spoken, WORDS, VOICES, seed=1) == spoken
    assert files(spoken) == before


def test_other_settings_are_an_error_and_change_nothing(spoken: Path) -> None:
    before = files(spoken)
    with pytest.raises(DataError) as error:
        synthesise_words(spoken, WORDS, VOICES, seed=2)
    message = str(error.value)
    assert message.startswith(f"{spoken}: made with ")
    assert message.endswith('"seed": 2, "sample_rate": 16000}; delete it or give another folder')
    assert "\n" not in message
    assert files(spoken) == before


def test_a_folder_of_something_else_is_an_error_and_an_empty_one_is_used(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "diary.txt").write_text("mine")
    (tmp_path / "file").touch()
    for name in ("full", "file"):
        with pytest.raises(
            DataError, match=rf"{name}: exists and has no readable words\.json; give a new or empty fol"
        ):
            synthesise_words(tmp_path / name, WORDS, 5)
    assert files(tmp_path / "full") == {"diary.txt": b"mine"}
    (tmp_path / "empty").mkdir()
    assert len(files(synthesise_words(tmp_path / "empty", WORDS, 5))) == 17


def test_an_interrupted_call_leaves_nothing_and_the_next_succeeds(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesise_words(tmp_path / "spoken", WORDS, 5, progress=interrupt)
    assert list(tmp_path.iterdir()) == []
    assert len(files(synthesise_words(tmp_path / "spoken", WORDS, 5))) == 17


def test_two_cannot_make_one_folder(tmp_path: Path) -> None:
    root = tmp_path / "spoken"

    def other_process(done: int, total: int) -> None:
        with pytest.raises(LockedError, match=rf"^{root}: in use by process {os.getpid()} on "):
            synthesise_words(root, WORDS, 5)

    assert synthesise_words(root, WORDS, 5, progress=other_process) == root
    assert list(tmp_path.iterdir()) == [root]
    assert len(load_folder(root).train) == 9


def test_progress_counts_every_clip(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    synthesise_words(tmp_path / "spoken", ("up", "ice cream"), 5, progress=lambda *counts: seen.append(counts))
    assert seen == [(done, 10) for done in range(1, 11)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), r"^words=\(\); expected one or more distinct words$"),
        (("yes", "yes"), r"^words=\('yes', 'yes'\); expected one or more distinct words$"),
        (("yes", "../no"), r"^'\.\./no' cannot be a word; expected letters, digits, spaces, hyphens and apostrophes$"),
        (("yes", ""), r"^'' cannot be a word"),
    ],
)
def test_what_is_no_word_is_refused(tmp_path: Path, given: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        synthesise_words(tmp_path / "spoken", given)
    assert list(tmp_path.iterdir()) == []


def test_silence_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words.Espeak, "say", lambda *_: np.zeros(2000, np.int16))
    with pytest.raises(DataError, match=r"^espeak-ng says nothing for 'yes' with voice .*; choose another word$"):
        synthesise_words(tmp_path / "spoken", WORDS, 5)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_any_name(tmp_path: Path) -> None:
    root = synthesise_words(tmp_path / os.fsdecode(b"caf\xe9"), ["yes"], voices=5)
    assert len(list(root.glob("yes/*.wav"))) == 5
