"""Speech Commands V2 with its 35 words (Warden 2018, https://arxiv.org/abs/1804.03209)."""

from pathlib import Path

from fastloaa.data.clips import AudioSplits, Clip, DataError
from fastloaa.data.folder import find_sounds
from fastloaa.data.sounds import LeftOut, has_file
from fastloaa.text import printable

VALIDATION_LIST, TESTING_LIST = "validation_list.txt", "testing_list.txt"
SPEECH_COMMANDS_LAYOUT = f"{VALIDATION_LIST}, {TESTING_LIST} and a folder per word"
NOISE = "_background_noise_"  # minutes of noise to mix in, which are not a word


def load_speech_commands(root: str | Path) -> AudioSplits:
    """Speech Commands with its official splits: two lists name the validation and test clips, the rest is for training.

    A speaker is in one split only: that is how the lists were made. The classes are the folders in alphabetical order,
    all 35 words in the official archive; `_background_noise_` is left out.

    Args:
        root: folder with `validation_list.txt`, `testing_list.txt` and `<word>/<speaker>_nohash_<take>.wav`.

    Raises:
        DataError: a list is missing or is no text, or names a file that is not there or that is not in a word's folder.
    """
    root = Path(root)
    left_out = LeftOut()
    sounds = find_sounds(root, left_out) if root.is_dir() else {}
    sounds.pop(NOISE, None)
    classes = tuple(sounds)
    clips = {path: Clip(path, (label,)) for label, word in enumerate(classes) for path in sounds[word]}
    validation = [clips.pop(path) for path in _listed(root, VALIDATION_LIST, clips)]
    test = [clips.pop(path) for path in _listed(root, TESTING_LIST, clips)]
    name = printable(root.resolve().name)
    return AudioSplits(name, classes, tuple(clips.values()), tuple(validation), tuple(test), left_out.lines())


def _listed(root: Path, name: str, clips: dict[Path, Clip]) -> list[Path]:
    """The files that a list names, each once, all of them among `clips`."""
    file = root / name
    if not file.is_file():
        raise DataError(f"{file}: no such file; expected Speech Commands' layout, {SPEECH_COMMANDS_LAYOUT}")
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not a text file ({error}); download it again") from error
    listed: dict[Path, None] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        path = root / line.strip()
        if path in listed or path not in clips:
            reason = "is no clip of a word, or is listed twice" if has_file(path) else "is missing"
            raise DataError(f"{file} line {number}: {line.strip()} {reason}; download it again or delete the line")
        listed[path] = None
    return list(listed)
