"""The picture of attention maps: time in seconds, frequency in hertz, models side by side (LoAA, figure 3)."""

from fastloaa.extras import needs

needs("matplotlib")

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from fastloaa.attention.maps import AttentionError, attention_maps, token_attention
from fastloaa.audio.mel import hertz_of_bins, hertz_of_mel, mel_of_hertz
from fastloaa.backbones import backbone_of
from fastloaa.figure_text import drawable
from fastloaa.models import AST

_TICKS = (100, 500, 1000, 2000, 4000, 8000, 16000)  # Hz
_QUERY = "#00e5ff"


@dataclass(frozen=True)
class Places:
    """Where frames, mel bins and tokens of a model lie, in seconds and hertz.

    Frame i is drawn from i to i + 1 hops. Of overlapping patches each has the stride's width around its centre.
    """

    model: AST

    def frame_edges(self) -> NDArray[np.float64]:
        """[frames + 1], seconds."""
        return np.arange(self.model.front_end.frames + 1, dtype=np.float64) * self.model.front_end.hop

    def bin_edges(self) -> NDArray[np.float64]:
        """[mel_bins + 1], Hz."""
        return self._hertz(np.arange(self.model.front_end.mel_bins + 1, dtype=np.float64))

    def step_edges(self) -> NDArray[np.float64]:
        """[time_steps + 1], seconds."""
        return self._token_edges(axis=1, count=self.model.grid.time_steps) * self.model.front_end.hop

    def row_edges(self) -> NDArray[np.float64]:
        """[freq_bins + 1], Hz."""
        return self._hertz(self._token_edges(axis=0, count=self.model.grid.freq_bins))

    def step_at(self, seconds: float) -> int:
        """The time step of the tokens at a moment.

        Raises:
            AttentionError: the model does not hear that moment.
        """
        end = self.frame_edges()[-1]
        if not 0 <= seconds < end:
            raise AttentionError(f"{seconds:g} s is not in what the model hears; expected a time from 0 to {end:g} s")
        inner = self.step_edges()[1:-1]  # what no patch covers belongs to the nearest
        return int(np.searchsorted(inner, seconds, side="right"))

    def _token_edges(self, axis: int, count: int) -> NDArray[np.float64]:
        """[count + 1], in frames or mel bins."""
        projection = self.model.backbone.patch_embed.proj
        patch, stride = projection.kernel_size[axis], projection.stride[axis]
        return (patch - stride) / 2 + stride * np.arange(count + 1)

    def _hertz(self, bins: NDArray[np.float64]) -> NDArray[np.float64]:
        return hertz_of_bins(self.model.front_end, bins)


@torch.no_grad()
def loudest_time(model: AST, waveform: Tensor) -> float:
    """The middle, in seconds, of the time step with the highest mean log-mel power; padding does not count.

    Args:
        waveform: [samples], at the model's sample rate.

    Raises:
        AttentionError: a clip shorter than one window of the front end.
    """
    log_mel, valid = model.front_end.padded_log_mel(waveform[None])
    if not valid.any():
        raise AttentionError(f"a clip of {len(waveform)} samples is shorter than one window of the front end")
    level, heard = log_mel[0].mean(1).numpy(), valid[0].numpy()
    begin, edges = Places(model).frame_edges()[:-1], Places(model).step_edges()
    means = []
    for start, stop in pairwise(edges):
        inside = heard & (begin >= start) & (begin < stop)
        means.append(level[inside].mean() if inside.any() else -np.inf)
    return float(edges[np.argmax(means) :][:2].mean())


def attention_figure(
    models: Mapping[str, AST],
    waveform: Tensor,
    times: Sequence[float] = (),
    layer: int = -1,
    title: str = "",
) -> Figure:
    """A column for each model: the log-mel spectrogram of a clip, and where the tokens of each time look.

    Attention is in multiples of what each token would get if all got the same; maps of one time share a scale.

    Args:
        models: by the titles of their columns; one front end and one grid for all. In evaluation mode.
        waveform: [samples], float, at the models' sample rate; cut or padded as the front end does.
        times: seconds; each stands for the time step that it falls into. The loudest step if none is given.
        layer: index of the transformer block; negative ones count from the last.
        title: of the picture.

    Raises:
        AttentionError: a time or a layer that does not exist, or models that differ in front end or grid.
    """
    first = next(iter(models.values()))
    for name, model in models.items():
        if model.front_end.config() != first.front_end.config() or model.grid != first.grid:
            raise AttentionError(f"{name}: has another front end or grid than the first; compare models that share it")
    places = Places(first)
    steps = list(dict.fromkeys(places.step_at(time) for time in times or [loudest_time(first, waveform)]))
    normalised = first.front_end(waveform[None])
    maps = [attention_maps(model, normalised, layer) for model in models.values()]

    figure = Figure(figsize=(1.6 + 5.2 * len(models), 1.3 + 2 * (1 + len(steps))), layout="constrained")
    count = len(backbone_of(first).blocks)
    about = f"self-attention of layer {layer % count} (of 0 to {count - 1}), mean over heads and frequency rows"
    (heading, *names), families = drawable([title, *models], longest=100)
    figure.suptitle(f"{heading}\n{about}".strip(), fontsize=11, parse_math=False, fontfamily=families)
    grid = figure.subplots(1 + len(steps), len(models), sharex=True, sharey=True, squeeze=False)
    _spectrograms(grid[0], first, waveform, [places.step_edges()[step : step + 2] for step in steps])
    for axes, name in zip(grid[0], names, strict=True):
        axes.set_title(name, fontweight="bold", fontsize=11, parse_math=False, fontfamily=families)
    for row, step in zip(grid[1:], steps, strict=True):
        _maps(row, places, maps, step)
    for axes in grid[-1]:
        axes.set_xlabel("time in s")
    for axes in grid[:, 0]:
        axes.set_ylabel("frequency in Hz")
    return figure


def _spectrograms(row: Sequence[Axes], model: AST, waveform: Tensor, queries: Sequence[NDArray[np.float64]]) -> None:
    """The log-mel spectrogram in every column, so that the eye can go straight down; padding is left grey."""
    places = Places(model)
    log_mel, valid = model.front_end.padded_log_mel(waveform[None])
    decibels = (log_mel[0] * model.front_end.decibels).numpy()
    heard = decibels[valid[0].numpy()]
    low, high = np.quantile(heard, (0.05, 1)) if heard.size else (0, 1)
    end, padding_from = places.frame_edges()[-1], places.frame_edges()[len(heard)]
    for axes in row:
        axes.set_facecolor("0.85")
        if padding_from < 0.85 * end:  # else there is no room
            middle = (padding_from + end) / 2
            axes.text(middle, 0.5, "padding", transform=axes.get_xaxis_transform(), ha="center", va="center")
        mesh = axes.pcolormesh(
            places.frame_edges(),
            places.bin_edges(),
            np.ma.masked_where(~valid.numpy().T.repeat(decibels.shape[1], 1), decibels).T,
            cmap="magma",
            vmin=low,
            vmax=high,
            rasterized=True,
        )
        for start, stop in queries:
            axes.axvspan(start, stop, facecolor="none", edgecolor=_QUERY, linewidth=1.5)
        axes.set_yscale("function", functions=(mel_of_hertz, hertz_of_mel))
        axes.set_yticks([tick for tick in _TICKS if tick <= places.bin_edges()[-1]])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlim(*places.frame_edges()[[0, -1]])
        axes.set_ylim(*places.bin_edges()[[0, -1]])
    _colour_bar(row, mesh, "log-mel in dB", extend="min")


def _maps(row: Sequence[Axes], places: Places, maps: Sequence[Tensor], step: int) -> None:
    """Where the tokens of one time step look, in every column, as large as the spectrogram."""
    grid = places.model.grid
    shares = [token_attention(each, grid, step)[0].numpy() for each in maps]  # [F, T], share of a query's attention
    multiples = [share * each.shape[3] for share, each in zip(shares, maps, strict=True)]
    start, stop = places.step_edges()[step : step + 2]
    # One or two tokens can hold most of it and would leave everything else dark.
    top = float(np.quantile(np.stack(multiples), 0.99))
    for axes, share, multiple in zip(row, shares, multiples, strict=True):
        mesh = axes.pcolormesh(
            places.step_edges(), places.row_edges(), multiple, cmap="viridis", vmin=0, vmax=top, rasterized=True
        )
        axes.axvspan(start, stop, facecolor="none", edgecolor=_QUERY, linewidth=1.5)
        axes.set_title(
            f"attention of the tokens at {start:.2f}–{stop:.2f} s, {share.sum():.0%} of it on patches", fontsize=9
        )
    _colour_bar(row, mesh, "attention / even share", extend="max")


def _colour_bar(row: Sequence[Axes], mesh: QuadMesh, label: str, extend: str) -> None:
    row[0].figure.colorbar(mesh, ax=list(row), label=label, extend=extend, pad=0.01, aspect=12)
