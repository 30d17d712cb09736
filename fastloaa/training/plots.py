"""Pictures of a run: its curves and the confusion of its classes. Drawn without a display or pyplot's global state."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from rich.cells import cell_len

from fastloaa.figure_text import drawable
from fastloaa.files import replacing
from fastloaa.training.recipe import Metric

_LABELS = 60
"""Classes up to which every one is named at the axes, and up to half of which counts are written into the cells."""


def plot_curves(rows: Sequence[Mapping[str, Any]], metric: Metric, path: Path) -> None:
    """Loss, validation metric and learning rate over the epochs, as PNG.

    Args:
        rows: of metrics.jsonl.
        metric: that chooses the epoch.
    """
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    loss, score, rate = figure.subplots(1, 3)
    epochs = [row["epoch"] for row in rows]
    for axes in (loss, score, rate):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    _line(loss, epochs, [row["train_loss"] for row in rows], "training")
    _line(loss, epochs, [row["validation_loss"] for row in rows], "validation")
    loss.set_ylabel("loss")
    loss.legend()
    _line(score, epochs, [row[f"validation_{metric}"] for row in rows], "validation")
    score.set_ylabel(f"validation {metric}")
    score.set_ylim(0, 1.02)
    if metric == "accuracy":
        score.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    _line(rate, epochs, [row["lr"] for row in rows], "learning rate")
    rate.set_ylabel("learning rate at the epoch's end")
    _save(figure, path)


def plot_confusion(confusion: Sequence[Sequence[int]], labels: Sequence[str], path: Path) -> None:
    """A confusion matrix as PNG: rows are the right classes, shares are of a row's clips.

    Args:
        confusion: [classes][classes], counts.
        labels: names of the classes.
    """
    counts = np.asarray(confusion)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    names, families = drawable(labels, longest=60)
    names_take = max(0.08 * max(map(cell_len, names)) - 1, 0)  # inches, beyond what there is room for anyway
    side = min(max(4.0, 0.28 * len(labels) + 2), 16) + (names_take if len(labels) <= _LABELS else 0)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, format=PercentFormatter(1, decimals=0), shrink=0.7, label="share of the class")
    axes.set_xlabel("taken for")
    axes.set_ylabel("class")
    if len(labels) <= _LABELS:
        axes.set_xticks(range(len(labels)), names, rotation=90, parse_math=False, fontfamily=families)
        axes.set_yticks(range(len(labels)), names, parse_math=False, fontfamily=families)
        axes.tick_params(labelsize=8)
    if len(labels) <= _LABELS // 2:
        for row, column in zip(*counts.nonzero(), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=8, color=colour)
    _save(figure, path)


def _line(axes: Axes, epochs: Sequence[int], values: Sequence[float | None], label: str) -> None:
    """Gaps where there is no value; a marker, or a single epoch would not show."""
    numbers = [np.nan if value is None else value for value in values]
    axes.plot(epochs, numbers, marker="o", markersize=3, label=label)


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)
