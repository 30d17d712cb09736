"""Draw results files: `python bench/plot.py bench/results/speed-....json` writes a PNG beside each."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from models import BARE
from speed import NO_ADAPTER, REFERENCE, shape_name

from fastloaa.files import replacing

Rows = list[dict[str, Any]]


def draw_speed(rows: Rows) -> Figure:
    """Time of each provider over the strongest plain Conv2d's, and share of the memory floor; one panel per mode."""
    modes = list(dict.fromkeys(r["mode"] for r in rows))
    shapes = list(dict.fromkeys(shape_name(r) for r in rows))
    providers = [p for p in dict.fromkeys(r["provider"] for r in rows) if p != "torch (again)"]
    figure, axes = plt.subplots(
        2, len(modes), figsize=(6 + 0.5 * len(shapes), 7), squeeze=False, sharex=True, layout="constrained"
    )
    for mode, (ratio_axis, floor_axis) in zip(modes, axes.T, strict=True):
        found = {(shape_name(r), r["provider"]): r for r in rows if r["mode"] == mode}
        for number, provider in enumerate(providers):
            at = [i for i, shape in enumerate(shapes) if (shape, provider) in found]
            mine = [found[shapes[i], provider] for i in at]
            reference = [found[shapes[i], REFERENCE]["median_ms"] for i in at]
            offset = [i + (number - len(providers) / 2) * 0.8 / len(providers) for i in at]
            style = {"marker": "_" if provider == NO_ADAPTER else "o", "ls": "", "label": provider}
            ratio_axis.plot(offset, [r["median_ms"] / t for r, t in zip(mine, reference, strict=True)], **style)
            floor_axis.plot(offset, [r["floor_ms"] / r["median_ms"] for r in mine], **style)
        ratio_axis.axhline(1, color="grey", lw=0.5)
        ratio_axis.set(title=mode, ylabel=f"time / {REFERENCE}", ylim=(0, None))
        floor_axis.set(ylabel="share of the memory floor", ylim=(0, 1))
        floor_axis.set_xticks(range(len(shapes)), shapes, rotation=60, ha="right")
    axes[0, -1].legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def draw_models(rows: Rows) -> Figure:
    """Time of each model over the bare backbone's, one column per case, and below it the memory where it is known."""
    cases = list(dict.fromkeys(_case_name(r) for r in rows))
    quantities: list[tuple[str, Callable[[dict[str, Any]], float], str]] = [
        (f"time / {BARE}", lambda r: r["ratio"], "{:.3f}")
    ]
    if rows[0].get("peak_mb"):
        quantities.append(("peak memory, GB", lambda r: r["peak_mb"] / 1e3, "{:.2f}"))
    if rows[0].get("kept_mb"):
        quantities.append(("kept for the backward pass, MB", lambda r: r["kept_mb"], "{:.0f}"))
    count = max(sum(_case_name(r) == case for r in rows) for case in cases)
    figure, axes = plt.subplots(
        len(quantities),
        len(cases),
        figsize=(2 + 3.2 * len(cases), (0.8 + 0.27 * count) * len(quantities)),
        squeeze=False,
        sharey="row",
        layout="constrained",
    )
    for (label, value, form), line in zip(quantities, axes, strict=True):
        for case, axis in zip(cases, line, strict=True):
            mine = [r for r in rows if _case_name(r) == case]
            bars(axis, {r["provider"]: value(r) for r in mine}, form)
            axis.set(title=case if label == quantities[0][0] else "", xlabel=label)
    for axis in axes[0]:
        axis.axvline(1, color="grey", lw=0.5)
    return figure


def draw_frontend(rows: Rows) -> Figure:
    """Clips per second, one column per batch size."""
    batches = list(dict.fromkeys(r["batch"] for r in rows))
    figure, axes = plt.subplots(
        1, len(batches), figsize=(2 + 3.2 * len(batches), 2.4), squeeze=False, sharey=True, layout="constrained"
    )
    for batch, axis in zip(batches, axes[0], strict=True):
        mine = [r for r in rows if r["batch"] == batch]
        bars(axis, {r["provider"]: r["clips_per_s"] for r in mine}, "{:.0f}")
        axis.set(title=f"{batch} clips of {mine[0]['seconds']} s", xlabel="clips per second")
    return figure


def bars(axis: Axes, values: dict[str, float], form: str) -> None:
    """Horizontal bars with their figures, the first on top."""
    drawn = axis.barh(list(values), list(values.values()), color=[f"C{'(again)' in name:d}" for name in values])
    axis.bar_label(drawn, [form.format(value) for value in values.values()], padding=2, fontsize="small")
    axis.margins(x=0.2)
    if not axis.yaxis_inverted():
        axis.invert_yaxis()


def _case_name(row: dict[str, Any]) -> str:
    dtype = "" if row["bench"] == "onnx" else f", {row['dtype']}"  # there it is the provider that says so
    return f"B={row['batch']}, {row['freq']}×{row['time']}, {row['depth']} blocks{dtype}"


FORMS = {
    "speed": draw_speed,
    "training": draw_models,
    "inference": draw_models,
    "switching": draw_models,
    "onnx": draw_models,
    "frontend": draw_frontend,
}


def plot(path: Path) -> Path:
    """The picture of a results file, beside it."""
    results = json.loads(path.read_text())
    rows: Rows = [row for row in results["rows"] if row["mode"] != "top-1"]
    bench = rows[0]["bench"]
    figure = FORMS[bench](rows)
    about = results["machine"]
    processor = about["gpu"] or about["cpu"]
    versions = f"torch {about['torch']}, {about['date']}, commit {about['commit']}"
    figure.suptitle(f"{bench}: {processor}\n{versions}", fontsize="medium")
    target = path.with_suffix(".png")
    with replacing(target) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)
    return target


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="+")
    for results_file in parser.parse_args().results:
        print(plot(results_file))
