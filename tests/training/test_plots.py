"""The pictures are PNG files that show what they were given; how they look was judged by eye."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from fastloaa.training.plots import plot_confusion, plot_curves

ROWS = [
    {"epoch": epoch, "lr": 1e-3 / epoch, "train_loss": 2.0 / epoch, "validation_loss": 2.5 / epoch}
    | {"validation_accuracy": epoch / 4, "validation_mAP": epoch / 5}
    for epoch in (1, 2, 3)
]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Those that have been saved."""
    saved: list[Figure] = []
    savefig = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: saved.append(self) or savefig(self, *a, **k))
    return saved


def test_curves(tmp_path: Path, figures: list[Figure]) -> None:
    plot_curves(ROWS, "mAP", tmp_path / "curves.png")
    lines = [list(line.get_ydata()) for axes in figures[0].axes for line in axes.lines]
    names = ("train_loss", "validation_loss", "validation_mAP", "lr")
    assert lines == [[row[name] for row in ROWS] for name in names]
    assert figures[0].axes[1].get_ylabel() == "validation mAP"
    assert imread(tmp_path / "curves.png").std() > 0


def test_curves_without_validation(tmp_path: Path, figures: list[Figure]) -> None:
    rows = [row | dict.fromkeys(("validation_loss", "validation_accuracy")) for row in ROWS[:1]]
    plot_curves(rows, "accuracy", tmp_path / "curves.png")
    assert np.isnan(figures[0].axes[1].lines[0].get_ydata()).all()


@pytest.mark.parametrize("classes", [1, 3, 40, 70])
def test_confusion(tmp_path: Path, figures: list[Figure], classes: int) -> None:
    confusion = [[3 if row == column else int(column == 0) for column in range(classes)] for row in range(classes)]
    confusion[-1] = [0] * classes  # a class without clips
    labels = [f"$class_{index}$" for index in range(classes)]  # no formulas
    plot_confusion(confusion, labels, tmp_path / "confusion.png")
    axes = figures[0].axes[0]
    shares = np.asarray(axes.images[0].get_array())
    assert np.allclose(shares.sum(1), [1.0] * (classes - 1) + [0.0])
    if classes > 1:
        assert shares[0, 0] == 1.0
    written = {(text.get_position(), text.get_text()) for text in axes.texts}
    if classes == 3:
        assert written == {((0, 0), "3"), ((0, 1), "1"), ((1, 1), "3")}
    named = [label.get_text() for label in axes.get_yticklabels()]
    assert (named == labels) is (classes <= 60)
    assert imread(tmp_path / "confusion.png").std() > 0


LABELS = [["x" * 300, "y"], ["录音 " * 30, "猫"], ["a long name " * 5] * 60, [""], ["\n", "\t"]]


@pytest.mark.parametrize("labels", LABELS, ids=range(len(LABELS)))
def test_labels_of_any_length_and_script(labels: list[str], tmp_path: Path, figures: list[Figure]) -> None:
    """Nothing is warned of, and the matrix keeps its room beside them."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_confusion(np.eye(len(labels), dtype=int).tolist(), labels, tmp_path / "confusion.png")
    width, height = figures[0].axes[0].get_window_extent().size / figures[0].dpi
    assert min(width, height) > 1.5
