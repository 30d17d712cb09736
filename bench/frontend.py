"""Waveforms to features, clips per second: `python bench/frontend.py`, `--save` to keep the figures.

The library's batched `FrontEnd` on the device against torchaudio's `kaldi.fbank`, clip by clip in a DataLoader, which
is how AST's recipes do it; both subtract the clip's mean, pad, normalise, and leave the features on the device, and
both have the same number of CPU threads. With workers, the front end's own DataLoader hands over waveforms. Candidates
run in turns (see timing.py).
"""

import argparse
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from models import ratio
from rich.console import Console
from rich.table import Table
from timing import Timing, describe, in_turns, save
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchaudio.compliance.kaldi import fbank

from fastloaa.audio import FrontEnd

RATE = 16000
BATCHES = 2  # an epoch
WORKERS = (0, 2)


class Clips(Dataset[Tensor]):
    """Waveforms as they are."""

    def __init__(self, waveforms: Tensor) -> None:
        self.waveforms = waveforms

    def __len__(self) -> int:
        return len(self.waveforms)

    def __getitem__(self, index: int) -> Tensor:
        return self.waveforms[index]


class Features(Clips):
    """What AST's `dataloader.py` makes of them."""

    def __init__(self, waveforms: Tensor, front_end: FrontEnd) -> None:
        super().__init__(waveforms)
        self.frames, self.mean, self.std = front_end.frames, front_end.mean, front_end.std

    def __getitem__(self, index: int) -> Tensor:
        waveform = self.waveforms[index]
        features = fbank(
            (waveform - waveform.mean())[None],
            htk_compat=True,
            sample_frequency=RATE,
            use_energy=False,
            window_type="hanning",
            num_mel_bins=128,
            dither=0.0,
            frame_shift=10,
        )
        features = F.pad(features, (0, 0, 0, self.frames - len(features)))
        return (features - self.mean) / (2 * self.std)


def candidates(batch: int, seconds: int, device: torch.device) -> dict[str, Callable[[int], Tensor]]:
    """What is timed: each goes once through the clips and returns the features of the last batch."""
    waveforms = 0.1 * torch.randn(BATCHES * batch, seconds * RATE)
    front_end = FrontEnd(frames=seconds * 100).to(device)

    def loader(clips: Clips, workers: int) -> DataLoader[Tensor]:
        pin = device.type == "cuda"
        return DataLoader(clips, batch, num_workers=workers, persistent_workers=workers > 0, pin_memory=pin)

    def epoch(batches: DataLoader[Tensor] | tuple[Tensor, ...], features: Callable[[Tensor], Tensor]) -> Any:
        def run(_: int) -> Tensor:
            last = torch.empty(0)
            for given in batches:
                last = features(given.to(device, non_blocking=True))
            return last

        return run

    found = {"front end": epoch(waveforms.to(device).split(batch), front_end)}
    for workers in WORKERS:
        found[f"front end, {workers} workers"] = epoch(loader(Clips(waveforms), workers), front_end)
        found[f"kaldi.fbank, {workers} workers"] = epoch(
            loader(Features(waveforms, front_end), workers), lambda features: features
        )
    return found


def measure(batch: int, seconds: int, device: torch.device, rounds: int) -> list[dict[str, Any]]:
    """Rows of one batch size, after checking that all give the same features."""
    torch.manual_seed(0)
    found = candidates(batch, seconds, device)
    expected = found["kaldi.fbank, 0 workers"](0)
    for name, run in found.items():
        error = float((run(0) - expected).abs().max())
        if not error < 1e-3:
            sys.exit(f"{name} gives other features than kaldi.fbank, by {error:.1e}; nothing was timed")
    with torch.no_grad():
        timings = in_turns(found, device, rounds, calls=1)
    return [row(name, batch, seconds, timing, timings) for name, timing in timings.items()]


def row(name: str, batch: int, seconds: int, timing: Timing, timings: dict[str, Timing]) -> dict[str, Any]:
    """One line of a results file; `speedup` is over kaldi.fbank with as many workers, in the same round."""
    workers = 2 if name.endswith("2 workers") else 0
    other = timings[f"kaldi.fbank, {workers} workers"]
    return {
        "bench": "frontend",
        "provider": name,
        "mode": "features",
        "batch": batch,
        "seconds": seconds,
        "threads": torch.get_num_threads(),
        "best_ms": round(timing.best, 3),
        "median_ms": round(timing.median, 3),
        "p20_ms": round(timing.percentile(20), 3),
        "p80_ms": round(timing.percentile(80), 3),
        "clips_per_s": round(BATCHES * batch / timing.median * 1e3, 1),
        "speedup": round(1 / ratio(timing, other), 3),
    }


def show(console: Console, lines: list[dict[str, Any]]) -> None:
    first = lines[0]
    title = f"{first['batch']} clips of {first['seconds']} s, {first['threads']} threads"
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    for column in ("best ms/clip", "median ms/clip", "clips/s", "speed-up"):
        table.add_column(column, justify="right")
    for line in lines:
        per_clip = (f"{line[key] / (BATCHES * line['batch']):.3f}" for key in ("best_ms", "median_ms"))
        table.add_row(line["provider"], *per_clip, f"{line['clips_per_s']:.0f}", f"{line['speedup']:.2f}")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 48])
    parser.add_argument("--seconds", type=int, default=10, help="length of a clip")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--save", action="store_true", help="write the figures to bench/results/")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()

    warnings.filterwarnings("ignore", category=UserWarning, module="torchaudio")
    console, device = Console(), torch.device(arguments.device)
    console.print(describe(device), soft_wrap=True)
    measured: list[dict[str, Any]] = []
    for batch in arguments.batch:
        lines = measure(batch, arguments.seconds, device, arguments.rounds)
        show(console, lines)
        measured += lines
    if arguments.save:
        console.print(f"saved to {save('frontend', device, measured)}")


if __name__ == "__main__":
    main()
