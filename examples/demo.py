"""From nothing to a served model, on a CPU: `make demo`, or `make demo DATA=folder` with your own recordings.

A vision transformer learns spoken words from scratch and is frozen: without a connection there are no ImageNet weights
to be had (online, `--weights timm` takes those instead). Then a linear probe and LoAA adapt it to other sounds, the
adapted model becomes one ONNX file, and that file answers for clips that nobody has trained on.
"""

import argparse
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from pretraining import BACKBONE, console, pretrained, say, synthesised, trained
from rich.table import Table

from fastloaa.audio import load_audio
from fastloaa.data import COMMANDS, AudioSplits, Clip, load_splits
from fastloaa.export import Classifier, Prediction, to_onnx
from fastloaa.files import replacing
from fastloaa.models import AST
from fastloaa.training import Recipe, load_run

DEPTH = 6


@dataclass(frozen=True)
class Row:
    """One line of the closing table."""

    name: str
    accuracy: float
    trainable: int
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="ESC-50's layout or label/clip.wav folders; default: spoken words")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="where everything is kept")
    parser.add_argument("--weights", help='backbone weights: "timm" (downloads) or a file; default: pre-train on words')
    parser.add_argument("--epochs", type=int, default=20, help="epochs of adaptation")
    parser.add_argument("--test-fold", type=int, default=1, help="for ESC-50's layout")
    arguments = parser.parse_args()

    weights = arguments.weights or str(pretrained(arguments.out, DEPTH))
    data = arguments.data or synthesised(arguments.out / "words", COMMANDS, voices=60)
    splits = load_splits(data, test_fold=arguments.test_fold)
    say("Adapt", f"the frozen transformer to {splits.summary()}.")
    recipe = Recipe(data=str(data), test_fold=arguments.test_fold, weights=weights, epochs=arguments.epochs, **SETTINGS)
    name = f"{Path(data).resolve().name}-fold{arguments.test_fold}" if arguments.data else "words"
    runs = {method: arguments.out / f"{name}-{method}" for method in ("probe", "loaa")}
    say("Linear probe", "first: only the classifier on top learns. What LoAA has to beat.")
    probe = run(recipe.replace(method="probe"), runs["probe"])
    say("LoAA", "now: adapters look aside along time (attention) and frequency (FFN); the transformer stays frozen.")
    options = {"attn": "time", "ffn": "freq", "bottleneck": 36}
    loaa = run(recipe.replace(method="loaa", method_options=options), runs["loaa"])

    say("Export", "the adapted model, front end included, to one ONNX file, checked against PyTorch in onnxruntime.")
    model = load_run(runs["loaa"])
    onnx_file = runs["loaa"] / "model.onnx"
    report = to_onnx(model, onnx_file)

    say("Answer", "for three held-out clips from the ONNX file alone.")
    clips = random.Random(0).sample(splits.test, 3)
    answers = list(Classifier(onnx_file).classify([clip.path for clip in clips]))
    picture = plot(model, splits, clips, answers, runs["loaa"] / "answers.png")
    close(probe, loaa, runs["loaa"] / "adapter.safetensors", onnx_file, report.difference, picture)


# The same for both methods, so that the comparison is one of methods. Chosen on the words' validation voices.
SETTINGS: dict[str, Any] = {
    "backbone": BACKBONE,
    "backbone_options": {"depth": DEPTH},
    "batch_size": 32,
    "lr": 1e-3,
    "freq_mask": 24,
    "time_mask": 16,
}


def run(recipe: Recipe, folder: Path) -> Row:
    result = trained(recipe, folder)
    return Row(recipe.method, result["test"]["accuracy"], result["trainable_parameters"], result["seconds"])


def plot(model: AST, splits: AudioSplits, clips: list[Clip], answers: list[Prediction], path: Path) -> Path:
    """What the model saw and what it said: log-mel spectrograms with the three likeliest labels."""
    figure, axes = plt.subplots(2, 3, figsize=(12, 6), height_ratios=(3, 1), layout="constrained")
    for clip, answer, picture, bars in zip(clips, answers, *axes, strict=True):
        waveform = load_audio(clip.path, model.front_end.sample_rate)
        log_mel, valid = model.front_end.padded_log_mel(waveform[None])
        shown = log_mel[0, valid[0]]
        seconds = len(shown) * model.front_end.log_mel.shift / model.front_end.sample_rate
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


def close(probe: Row, loaa: Row, adapter: Path, onnx_file: Path, difference: float, picture: Path) -> None:
    table = Table("method", title="Same frozen backbone, same clips, test split", title_justify="left")
    for column in ("test accuracy", "trainable parameters", "seconds of training"):
        table.add_column(column, justify="right")
    for row in (probe, loaa):
        table.add_row(row.name, f"{row.accuracy:.1%}", f"{row.trainable:,}", f"{row.seconds:.0f}")
    console.print()
    console.print(table)
    console.print(f"adapter  {adapter}  {adapter.stat().st_size / 1e6:.1f} MB")
    console.print(f"ONNX     {onnx_file}  {onnx_file.stat().st_size / 1e6:.1f} MB")
    console.print(f"largest difference between PyTorch and onnxruntime: {difference:.1e}")
    console.print(f"picture  {picture}")
    console.print(f"try      .venv/bin/fastloaa predict {onnx_file} some.wav")


if __name__ == "__main__":
    main()
