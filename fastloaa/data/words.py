"""Spoken words synthesised on the spot, for those with no recordings at hand."""

import json
import os
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torchaudio.transforms import Resample

from fastloaa.data.clips import DataError
from fastloaa.data.espeak import Espeak
from fastloaa.data.split_table import SPLIT_FILE
from fastloaa.files import making_folder, new_folder
from fastloaa.files.locks import locked

COMMANDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
"""The ten commands of Speech Commands (Warden 2018, https://arxiv.org/abs/1804.03209)."""

PRETRAIN_WORDS = (
    *("water", "table", "window", "garden", "music", "paper", "yellow", "summer", "kitchen", "button"),
    *("river", "mother", "finger", "market", "pencil", "silver", "monkey", "doctor", "basket", "island"),
    *("cup", "fish", "milk", "chair", "light", "hand", "book", "road", "green", "sun"),
)
"""Thirty everyday words for pre-training; none is among the 35 words of Speech Commands, digits included."""

SAMPLE_RATE = 16000
SETTINGS_FILE = "words.json"

ACCENTS = ("en", "en-029", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-gb-x-rp", "en-us", "en-us-nyc")

# Those of espeak's variants that differ most from each other: spectra of COMMANDS at least 2.8 dB apart (root mean
# square; 0.2 dB for one variant twice). Without whispers, robots, and voices that clip or draw noise from C's rand().
VARIANTS = (
    *("Alex", "Alicia", "Andrea", "Andy", "Annie", "AnxiousAndy", "Denis", "Gene2", "Hugo", "Jacky", "Lee"),
    *("Marco", "Mario", "Michael", "Mike", "Nguyen", "RicishayMax2", "anika", "belinda", "boris", "david"),
    *("edward", "f1", "f2", "f3", "f4", "f5", "grandma", "grandpa", "gustave", "ian", "iven3"),
    *("iven4", "john", "kaukovalta", "klatt2", "klatt3", "linda", "m1", "m2", "m3", "m4", "m6", "m7", "m8"),
    *("marcelo", "max", "miguel", "norbert", "pablo", "paul", "pedro", "quincy", "rob", "sandro", "shelby"),
    *("steph3", "travis", "victor", "zac"),
)

# One in five voices is for testing and one in ten for validation, however many are asked for.
_PATTERN = ("train", "train", "test", "train", "validation", "train", "train", "test", "train", "train")
MIN_VOICES = 5

_SILENCE = 0.01  # of the peak, -40 dB: what is below it at both ends is trimmed
_MARGIN = round(0.02 * SAMPLE_RATE)  # samples of it that stay on each side
_LEVELS = (-12.0, -1.0)  # dB of full scale between which a clip's peak is drawn


@dataclass(frozen=True)
class Voice:
    """A speaker who always sounds the same: espeak's voice variant (the timbre), accent, pitch 0-100, words a minute.

    `split` is the one that all clips of the variant belong to.
    """

    variant: str
    accent: str
    pitch: int
    rate: int
    split: str

    @property
    def name(self) -> str:
        return f"{self.variant}-{self.accent}-p{self.pitch}-r{self.rate}"


def draw_voices(count: int, seed: int = 0) -> tuple[Voice, ...]:
    """`count` distinct voices; the first 60 differ in their variant, later ones repeat variants in another accent.

    A variant is in one split only, so that training never hears the timbre of a test voice. The first voices of a
    longer draw are those of a shorter one: sets of different words made with one seed agree in their splits.

    Raises:
        DataError: fewer than five voices, which do not fill three splits.
    """
    if count < MIN_VOICES:
        raise DataError(f"voices={count} do not fill three splits; expected at least {MIN_VOICES}")
    order = list(VARIANTS)
    random.Random(seed).shuffle(order)
    voices: dict[str, Voice] = {}
    draw = 0
    while len(voices) < count:
        place = draw % len(order)
        rng = random.Random(f"{seed}/{draw}")
        voice = Voice(
            order[place],
            rng.choice(ACCENTS),
            rng.randint(30, 65),
            rng.randint(110, 155),
            _PATTERN[place % len(_PATTERN)],
        )
        voices.setdefault(voice.name, voice)
        draw += 1
    return tuple(voices.values())


def synthesise_words(
    root: str | Path,
    words: Sequence[str] = COMMANDS,
    voices: int = 60,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a data set of spoken words for `load_folder`: `root/word/voice.wav`, 16 kHz, 16 bits, with `split.csv`.

    Every voice says every word. The voices of the test and validation splits are unseen in training; a clip's group is
    its voice variant. The same settings give the same bytes. A folder made with the same settings is used as it is;
    it appears only when complete, and an interrupted call starts over.

    Args:
        root: the folder to make.
        words: English words or phrases, each a class.
        voices: how many, from `draw_voices`; about seven in ten are for training, one for validation, two for testing.
        seed: of the voices and of the clips' levels.
        progress: called with (clips done, clips in all) after each clip.

    Returns:
        `root`.

    Raises:
        DataError: `root` holds something else or words made with other settings, espeakng-loader is not installed,
            espeak-ng fails or stays silent, or a word is no file name or is given twice.
        LockedError: another process is making them.
        WriteError: they cannot be written.
    """
    root = Path(root)
    if not words or len(set(words)) < len(words):
        raise DataError(f"words={tuple(words)}; expected one or more distinct words")
    for word in words:
        if not re.fullmatch(r"\w[\w' -]*", word):
            raise DataError(f"{word!r} cannot be a word; expected letters, digits, spaces, hyphens and apostrophes")
    settings = {"words": list(words), "voices": voices, "seed": seed, "sample_rate": SAMPLE_RATE}
    if _is_complete(root, settings):
        return root
    drawn, root = draw_voices(voices, seed), new_folder(root)
    with locked(root, root.with_name(f".{root.name}.lock")):
        if not _is_complete(root, settings):  # else another process has made it since
            with making_folder(root) as temporary:
                temporary.mkdir()
                _write_clips(temporary, words, drawn, seed, progress)
                (temporary / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n")
    return root


def _is_complete(root: Path, settings: dict[str, object]) -> bool:
    """Whether `root` holds the words of these settings; a DataError if it holds anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = json.loads((root / SETTINGS_FILE).read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{root}: exists and has no readable {SETTINGS_FILE}; give a new or empty folder") from error
    if found != settings:
        raise DataError(
            f"{root}: made with {json.dumps(found)}, not with {json.dumps(settings)}; delete it or give another folder"
        )
    return True


def _write_clips(
    folder: Path,
    words: Sequence[str],
    voices: Sequence[Voice],
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """All clips and `split.csv`."""
    espeak = Espeak()
    resample = Resample(espeak.sample_rate, SAMPLE_RATE)
    rows = ["path,split,group"]
    for word in words:
        (folder / word).mkdir()
        for voice in voices:
            speech = espeak.say(word, voice.accent, voice.variant, voice.pitch, voice.rate)
            if not len(speech) or np.abs(speech.astype(np.int32)).max() < 100:
                raise DataError(f"espeak-ng says nothing for {word!r} with voice {voice.name}; choose another word")
            level = random.Random(f"{seed}/{word}/{voice.name}").uniform(*_LEVELS)
            path = f"{word}/{voice.name}.wav"
            soundfile.write(os.fsencode(folder / path), _shape(speech, resample, level), SAMPLE_RATE, subtype="PCM_16")
            rows.append(f"{path},{voice.split},{voice.variant}")
            if progress is not None:
                progress(len(rows) - 1, len(words) * len(voices))
    (folder / SPLIT_FILE).write_text("\n".join(rows) + "\n")


def _shape(speech: NDArray[np.int16], resample: Resample, level: float) -> NDArray[np.float32]:
    """Speech at the target rate with most of the silence at its ends trimmed and its peak at `level` dB."""
    waveform = resample(torch.from_numpy(speech).float())
    peak = waveform.abs().max()
    loud = (waveform.abs() > _SILENCE * peak).nonzero()
    start, end = max(int(loud[0]) - _MARGIN, 0), int(loud[-1]) + 1 + _MARGIN
    return (waveform[start:end] * (10 ** (level / 20) / peak)).numpy()
