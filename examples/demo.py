"""From images to a served sound model, on a CPU: `make demo`, or `make demo DATA=folder` with your own recordings.

A small vision transformer that has seen photographs, and never a sound, is frozen (`backbones/`; `--weights timm` takes
one that has seen all of ImageNet, online). A linear probe, parallel adapters and LoAA teach it to hear, with several
seeds, since one run says little. The adapted model becomes one ONNX file, and that file answers for clips that nobody
has trained on, also in a browser, on a page of its own.
"""

import argparse
import random
import shlex
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from rich.table import Table
from shared import BACKBONE, IMAGES, console, difference, finished, say, synthesised

from fastloaa.audio import load_audio
from fastloaa.data import COMMANDS, AudioSplits, Clip, load_splits
from fastloaa.export import Classifier, Prediction, to_onnx, write_bundle
from fastloaa.export.bundle.browser import ARCHIVE
from fastloaa.files import replacing
from fastloaa.models import AST
from fastloaa.training import Recipe, load_run
from fastloaa.training.sweep import sweep
from fastloaa.training.sweep_table import SweepTable, in_words

# All alike but for the learning rate, which the words' validation voices chose for each. The adapters have the same
# number of parameters: 36 wide with three taps, 108 wide with one.
METHODS: dict[str, dict[str, Any]] = {
    "probe": {"method": "probe", "lr": 3e-2},
    "parallel": {"method": "parallel", "lr": 3e-3, "method_options": {"bottleneck": 108}},
    "loaa": {"method": "loaa", "lr": 3e-3, "method_options": {"attn": "time", "ffn": "freq", "bottleneck": 36}},
}
SETTINGS: dict[str, Any] = {
    "backbone": BACKBONE,
    "backbone_options": {"depth": 6},
    "batch_size": 32,
    "freq_mask": 24,
    "time_mask": 16,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="ESC-50's layout or label/clip.wav folders; default: spoken words")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="where everything is kept")
    parser.add_argument("--weights", default=IMAGES, help='of the frozen transformer: a file, or "timm" (downloads)')
    parser.add_argument("--epochs", type=int, default=8, help="epochs of adaptation")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each method")
    parser.add_argument("--test-fold", type=int, default=1, help="for ESC-50's layout")
    arguments = parser.parse_args()

    data = arguments.data or synthesised(arguments.out / "words", COMMANDS, voices=60)
    splits = load_splits(data, test_fold=arguments.test_fold)
    say("Adapt", f"a transformer that has seen only images, frozen, to {splits.summary()}.")
    console.print("  probe: a classifier on top of it learns, and nothing else. What adapters have to beat.")
    console.print("  parallel: an adapter beside attention and FFN sees one token at a time.")
    console.print("  loaa: adapters that look aside, along time (attention) and along frequency (FFN).")
    base = Recipe(
        data=str(data),
        test_fold=arguments.test_fold,
        weights=str(arguments.weights),
        epochs=arguments.epochs,
        **SETTINGS,
    )
    recipes = {name: base.replace(**changes) for name, changes in METHODS.items()}
    out = arguments.out / (
        f"{arguments.data.resolve().name}-fold{arguments.test_fold}" if arguments.data else "adapted"
    )
    table = finished(sweep(recipes, out, seeds=range(arguments.seeds), console=console))

    say("Export", "the model with LoAA, front end included, to one ONNX file, checked against PyTorch in onnxruntime.")
    loaa = out / "loaa" / "seed0"
    model = load_run(loaa)
    bundle = loaa / data.resolve().name  # servers and the page call the model so
    onnx_file = bundle / "model.onnx"
    report = to_onnx(model, onnx_file)

    say("Answer", "for three held-out clips from the ONNX file alone.")
    clips = random.Random(0).sample(splits.test, 3)
    answers = list(Classifier(onnx_file).classify([clip.path for clip in clips]))
    picture = plot(model, splits, clips, answers, loaa / "answers.png")
    compare(table, len(splits.test))
    adapter = loaa / "adapter.safetensors"
    console.print(f"adapter  {adapter}  {adapter.stat().st_size / 1e6:.1f} MB")
    console.print(f"ONNX     {onnx_file}  {onnx_file.stat().st_size / 1e6:.1f} MB")
    console.print(f"largest difference between PyTorch and onnxruntime: {report.difference:.1e}")
    console.print(f"picture  {picture}")
    console.print(f"try      .venv/bin/fastloaa predict {onnx_file} some.wav")
    archive = Path(sys.prefix) / ARCHIVE  # `make demo` has it fetched where there is npm
    write_bundle(onnx_file, bundle, archive if archive.is_file() else None)
    console.print(f"bundle   {bundle}  clients, servers and a page, see its README.md")
    if archive.is_file():
        served = f"python3 -m http.server --bind 127.0.0.1 --directory {shlex.quote(str(bundle))}"
        console.print(f"listen   {served}, then open http://localhost:8000/web/ for files and the microphone")
    else:
        console.print("listen   the page lacks onnxruntime-web: `make demo` again with Node.js, or see README.md")


def plot(model: AST, splits: AudioSplits, clips: list[Clip], answers: list[Prediction], path: Path) -> Path:
    """What the model saw and what it said: log-mel spectrograms with the three likeliest labels."""
    figure, axes = plt.subplots(2, 3, figsize=(12, 6), height_ratios=(3, 1), layout="constrained")
    for clip, answer, picture, bars in zip(clips, answers, *axes, strict=True):
        waveform = load_audio(clip.path, model.front_end.sample_rate)
        log_mel, valid = model.front_end.padded_log_mel(waveform[None])
        shown = log_mel[0, valid[0]]
        seconds = len(shown) * model.front_end.hop
        picture.imshow(shown.T, origin="lower", aspect="auto", extent=(0, seconds, 0, shown.shape[1]))
        truth = splits.classes[clip.labels[0]]
        verdict = "right" if answer.labels[0] == truth else "wrong"
        picture.set(title=f"{truth}\nanswered {answer.labels[0]} ({verdict})", xlabel="seconds", ylabel="mel bin")
        bars.barh(answer.labels[::-1], answer.probabilities[::-1], color="C0" if verdict == "right" else "C3")
        bars.set(xlim=(0, 1), xlabel="probability")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)
    return path


def compare(table: SweepTable, clips: int) -> None:
    """What came out, and how far to trust it."""
    seeds = len(table.seed_means("loaa", "accuracy"))
    shown = Table("method", title="Same frozen transformer, same clips; test accuracy, %", title_justify="left")
    for column in (f"mean of {seeds} seeds", "trainable parameters", "seconds a run"):
        shown.add_column(column, justify="right")
    for name in table.papers:
        seconds = sum(outcome.seconds for outcome in table.outcomes if outcome.name == name) / seeds
        reached = in_words(table.spread(name, "accuracy"), percent=True)
        shown.add_row(name, reached, f"{table.trainable_parameters(name):,}", f"{seconds:.0f}")
    console.print()
    console.print(shown)
    means = {name: table.seed_means(name, "accuracy") for name in table.papers}
    for other in ("probe", "parallel"):
        console.print(f"loaa against {other}, seed by seed: {difference(means['loaa'], means[other])} points")
    accuracy = table.spread("loaa", "accuracy").mean
    chance = 100 * (accuracy * (1 - accuracy) / clips) ** 0.5
    console.print(
        f"± is the standard deviation over seeds. With {clips} test clips every figure has a standard error of about "
        f"{chance:.0f} points besides: differences smaller than that say nothing about methods."
    )


if __name__ == "__main__":
    main()
