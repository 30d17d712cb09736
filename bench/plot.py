"""Draw a results file: `python bench/plot.py bench/results/speed-....json` writes a PNG beside it."""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from speed import NO_ADAPTER, REFERENCE, shape_name

from fastloaa.files import replacing


def plot(path: Path) -> Path:
    """Time of each provider over the strongest plain Conv2d's, and share of the memory floor; one panel per mode."""
    results = json.loads(path.read_text())
    rows: list[dict[str, Any]] = results["rows"]
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
    about = results["machine"]
    processor = about["gpu"] or about["cpu"]
    figure.suptitle(f"{processor}, torch {about['torch']}, {about['date']}, commit {about['commit']}")
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
