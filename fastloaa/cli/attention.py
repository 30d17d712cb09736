"""`fastloaa attention`: where the tokens of a moment look, before and after adaptation."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:  # what is heavy is imported where it is used, so that --help is quick
    from fastloaa import AST


def attention(
    run: Annotated[
        Path, typer.Argument(help="Folder that `fastloaa train --out` made, or a file of `fastloaa merge`.")
    ],
    clip: Annotated[Path, typer.Argument(help="A sound file.")],
    picture: Annotated[Path, typer.Argument(help="The file to write: .png, .pdf or .svg.")],
    layer: Annotated[int, typer.Option(help="Which transformer block: 0 is the first, -1 the last.")] = -1,
    time: Annotated[
        list[float] | None,
        typer.Option(help="Moment in the clip, in seconds; repeat it for more rows. The loudest one if not given."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Weights of the backbone, if they are no longer where the run found them.")
    ] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(help="Another run, or merged file, whose model gets a column after these; may be repeated."),
    ] = None,
) -> None:
    """Draw a clip's log-mel spectrogram and the attention of its tokens at chosen moments, before and after adaptation.

    That is the paper's figure 3. "Before" is the same model without its adapters; a model that has none to take out
    (linear probe, full fine-tuning, merged) gets one column. With --beside the last columns are those of other runs, of
    the same data and frames: the paper's third is a model that was trained on sound as a whole.

    Example: fastloaa attention runs/sounds dog.wav dog.png --time 0.3 --time 1.2 --beside runs/full
    """
    from fastloaa.attention import AttentionError
    from fastloaa.attention.figure import attention_figure, loudest_time
    from fastloaa.audio import load_beginning
    from fastloaa.files import replacing
    from fastloaa.text import printable

    if picture.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise AttentionError(f"{picture}: give a name that ends in .png, .pdf or .svg")
    models = _columns(run, weights)
    for other in beside or ():
        models[str(other)] = list(_columns(other, None).values())[-1]
    first = next(iter(models.values()))
    if first.front_end.reads == "log_mel":
        raise AttentionError(f"{run}: was trained on spectrograms from files; the figure is of models that read sounds")
    waveform, _ = load_beginning(clip, first.front_end.sample_rate, first.front_end.samples)
    times = time or [loudest_time(first, waveform)]
    title = printable(f"{run.resolve().name} ({first.config()['backbone']}): {clip.name}")
    figure = attention_figure(models, waveform, times, layer, title)
    with replacing(picture) as temporary:
        figure.savefig(temporary, dpi=150)
    print(f"{picture}: {', '.join(models)}; at {', '.join(f'{moment:g}' for moment in times)} s")


def _columns(run: Path, weights: str | None) -> "dict[str, AST]":
    """The models to compare, by the titles of their columns."""
    from fastloaa.attention import without_adapters
    from fastloaa.training import Recipe, load_run
    from fastloaa.training.rundir import RunDirectory

    if run.is_file():
        from fastloaa.export import load_merged

        return {"merged: no adapters to take out": load_merged(run)}  # type: ignore[dict-item]
    model = load_run(run, weights)
    method = Recipe.load(RunDirectory(run).recipe).method
    plain = without_adapters(model)
    if plain is None:
        return {f"{method}: no adapters to take out": model}
    return {"before adaptation": plain, f"after adaptation ({method})": model}
