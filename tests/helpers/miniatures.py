"""The paper's three data sets in their official layouts, with a few short tones each."""

from collections.abc import Callable
from pathlib import Path

from helpers.tones import write_tone

PITCHES = (500, 1000)  # of the two classes


def esc50(root: Path) -> Path:
    """Five folds of one clip for each class, of 0.2 s at 44.1 kHz."""
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, 6):
        for label in range(len(PITCHES)):
            name = f"{fold}-{fold}{label}-A-{label}.wav"
            write_tone(root / "audio" / name, PITCHES[label], 0.2, 44100)
            rows.append(f"{name},{fold},{label},class{label},False,{fold}{label},A")
    (root / "meta").mkdir()
    (root / "meta" / "esc50.csv").write_text("\n".join(rows) + "\n")
    return root


def speech_commands(root: Path) -> Path:
    """Two words by six speakers; the last two are in the official lists."""
    lists: dict[str, list[str]] = {"validation_list.txt": [], "testing_list.txt": []}
    for label, word in enumerate(("yes", "no")):
        for speaker in range(6):
            name = f"{word}/{speaker}_nohash_0.wav"
            write_tone(root / name, PITCHES[label], 0.2)
            if speaker > 3:
                lists["validation_list.txt" if speaker == 4 else "testing_list.txt"].append(name)
    for name, lines in lists.items():
        (root / name).write_text("\n".join(lines) + "\n")
    return root


def epic_sounds(root: Path) -> Path:
    """Segments of 0.2 s of two videos, one for training and one for validation, as wav."""
    header = "annotation_id,participant_id,video_id,start_timestamp,stop_timestamp,description,class,class_id"
    for number, split in enumerate(("train", "validation")):
        video = f"P01_0{number}"
        write_tone(root / "audio" / f"{video}.wav", PITCHES[number], 1.0, 24000)
        rows = [
            f"{video}_{i},P01,{video},00:00:00.{2 * i}00,00:00:00.{2 * i + 2}00,x,class{i % 2},{i % 2}"
            for i in range(4)
        ]
        (root / f"EPIC_Sounds_{split}.csv").write_text("\n".join([header, *rows]) + "\n")
    return root


# By the beginning of the names of their recipes.
MINIATURES: dict[str, Callable[[Path], Path]] = {
    "epic-sounds": epic_sounds,
    "esc-50": esc50,
    "speech-commands": speech_commands,
}
