"""What a long list of clips costs, `python bench/lists.py --rows 2000000`: time to load it, memory, and of each worker.

Empty files stand for the recordings of AudioSet, which are listed in its own tables, in AST's JSON and in a split.csv.
Workers then ask for clips in a random order, and what of their memory is theirs alone is read from the system; with
`--objects` from a list of `Clip` objects, as a comparison. CPU seconds, since other programs may be running.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.utils.data import DataLoader, Dataset

from fastloaa.data import AudioSplits, ClipDataset, load_splits

CLASSES, TESTED, WORKERS = 527, 20_000, 2
ASKED = 50_000  # clips that each worker is asked for


def write(root: Path, rows: int) -> list[Path]:
    """The three layouts of one set of empty files."""
    names, mids = [f"{number:011d}" for number in range(rows)], [f"/m/{number:05x}" for number in range(CLASSES)]
    (root / "audio").mkdir(parents=True)
    for name in names:
        os.close(os.open(root / "audio" / f"{name}.wav", os.O_CREAT))
    draw = random.Random(0)
    labels = {name: draw.sample(range(CLASSES), 2) for name in names}
    parts = {"train": names[:-TESTED], "eval": names[-TESTED:]}
    table = "index,mid,display_name\n" + "".join(f"{i},{mid},class {i}\n" for i, mid in enumerate(mids))
    layouts = [root / name for name in ("tables", "json", "csv")]
    for layout in layouts:
        layout.mkdir()
        (layout / "audio").symlink_to(root / "audio")
    for layout in layouts[:2]:
        (layout / "class_labels_indices.csv").write_text(table)
    for part, own in parts.items():
        codes = {name: ",".join(mids[label] for label in labels[name]) for name in own}
        with (layouts[0] / f"{part}_segments.csv").open("w") as file:
            file.writelines(f'{name}, 30.000, 40.000, "{codes[name]}"\n' for name in own)
        data = [{"wav": f"{root}/audio/{name}.wav", "labels": codes[name]} for name in own]
        (layouts[1] / f"x_{part}.json").write_text(json.dumps({"data": data}))
    with (layouts[2] / "split.csv").open("w") as file:
        file.write("path,label,split\n")
        for part, own in parts.items():
            split = "test" if part == "eval" else "train"
            file.writelines(f"audio/{name}.wav,class {labels[name][0]},{split}\n" for name in own)
    return layouts


class Asking(Dataset[int]):
    """Asks for clips, of which nothing is read: what is measured is the list's."""

    def __init__(self, clips: ClipDataset | list[object]) -> None:
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> int:
        """The process's own memory in bytes, now and then; else 0."""
        str(self.clips.clips[index] if isinstance(self.clips, ClipDataset) else self.clips[index])
        if index % 997:
            return 0
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def megabytes(pid: str = "self") -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def measure(layout: Path, objects: bool) -> None:
    before, since, clock = megabytes(), time.process_time(), time.perf_counter()
    splits: AudioSplits = load_splits(layout)
    seconds, wall = time.process_time() - since, time.perf_counter() - clock
    print(f"{layout.name}: {len(splits.train) + len(splits.test):,} clips in {seconds:.1f} s of CPU ({wall:.1f} s)")
    print(f"  memory: {megabytes() - before:.0f} MB more than before, {before:.0f} MB of which are the libraries'")
    clips: ClipDataset | list[object] = ClipDataset(splits.train, 16000, len(splits.classes))
    if objects:
        clips = list(splits.train)
    order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(0))[: ASKED * WORKERS].tolist()
    loader = DataLoader(Asking(clips), 500, sampler=order, num_workers=WORKERS)
    own = [int(batch.max()) / 2**20 for batch in loader if batch.any()]
    print(f"  a worker's own memory, from its first batch to its last: {own[0]:.0f} to {own[-1]:.0f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--objects", action="store_true", help="workers get a list of Clip objects")
    parser.add_argument("--layout", type=Path, help="measure one that has been written (used by itself)")
    arguments = parser.parse_args()
    if arguments.layout:
        measure(arguments.layout, arguments.objects)
    else:
        with TemporaryDirectory() as temporary:
            for written in write(Path(temporary) / "lists", arguments.rows):
                command = [sys.executable, __file__, "--layout", str(written)]
                subprocess.run(command + ["--objects"] * arguments.objects, check=True)
