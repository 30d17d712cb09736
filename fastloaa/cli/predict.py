"""`fastloaa predict`: what an exported model hears in sound files."""

import glob
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:  # what is heavy is imported where it is used, so that --help is quick
    from fastloaa.export import Prediction


def predict(
    model: Annotated[Path, typer.Argument(help="ONNX file that `fastloaa export` wrote.")],
    files: Annotated[list[str], typer.Argument(help="Sound files, folders of them, patterns such as 'sounds/*.ogg'.")],
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Most classes to name for each file; 3 where neither this nor --threshold is given."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Least probability of a class; 0.5 for models of several labels to a clip."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Most clips in one run of the model.")] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each file, for scripts.")] = False,
) -> None:
    """Classify sound files with an exported model.

    Answers come as they are found. A file that cannot be read is named and passed over; the exit code is then 1.

    Example: fastloaa predict sounds.onnx recordings/ 'more/*.ogg' --json
    """
    from fastloaa.export import Classifier

    paths = sound_files(files)
    classifier = Classifier(model)
    write = _write_json if as_json else _table_writer(paths, classifier.metadata.labels)
    broken = cut = 0
    for prediction in _progress(classifier.classify(paths, batch_size, top, threshold), len(paths)):
        write(prediction)
        broken += prediction.error is not None
        cut += prediction.seconds != prediction.heard
    if cut:
        window = classifier.metadata.window
        print(f"of {cut} of {len(paths)} files only the first {window:.2f} s were heard", file=sys.stderr)
    if broken:
        print(f"{broken} of {len(paths)} files could not be read", file=sys.stderr)
        raise typer.Exit(1)


def sound_files(arguments: Sequence[str]) -> list[Path]:
    """Files as they are given, folders' sound files at any depth, and patterns that the shell left as they are.

    Raises:
        FileNotFoundError: a folder without sound files, or a pattern without matches.
    """
    from fastloaa.data.folder import AUDIO_SUFFIXES

    found: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            sounds = [p for p in path.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES and p.is_file()]
            if not sounds:
                raise FileNotFoundError(f"{argument}: a folder without sound files (wav, flac, ogg, mp3, ...)")
        elif glob.has_magic(argument) and not path.exists():
            sounds = [Path(match) for match in glob.glob(argument, recursive=True)]  # noqa: PTH207 (absolute ones too)
            if not sounds:
                raise FileNotFoundError(f"{argument}: no file matches this pattern")
        else:
            sounds = [path]
        found += sorted(sounds)
    return found


def _progress(predictions: Iterable["Prediction"], total: int) -> Iterator["Prediction"]:
    """A bar on stderr where it is a terminal, unless the answers themselves show there how far it is."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    hidden = not console.is_terminal or sys.stdout.isatty()
    # Without redirect_stdout=False rich would send the answers to stderr as well.
    with Progress(console=console, disable=hidden, transient=True, redirect_stdout=False) as progress:
        yield from progress.track(predictions, total, description="Listening")


def _write_json(prediction: "Prediction") -> None:
    answer: dict[str, object] = {"file": str(prediction.path)}
    if prediction.error is None:
        named = zip(prediction.labels, prediction.probabilities, strict=True)
        answer["top"] = [{"label": label, "probability": probability} for label, probability in named]
        answer |= {"seconds": prediction.seconds, "heard": prediction.heard}
    else:
        answer["error"] = prediction.error
    print(json.dumps(answer), flush=True)


def _table_writer(paths: Sequence[Path], labels: Sequence[str]) -> Callable[["Prediction"], None]:
    """Print a table's head, and return what prints one row of it: rows appear as they come, not all at the end."""
    from rich.console import Console
    from rich.table import Column, Table

    console = Console(markup=False, emoji=False, highlight=False)  # [brackets] in file names are no markup
    file_width = max(4, *(len(str(path)) for path in paths))
    if console.is_terminal:
        file_width = min(file_width, console.width // 2)
    else:
        console.width = 10_000  # nothing is cut in a file or a pipe

    def write_row(*cells: str, style: str = "") -> None:
        table = Table.grid(
            Column(width=file_width, no_wrap=True),
            Column(width=max(5, *map(len, labels)), no_wrap=True),
            Column(width=11, justify="right"),
            Column(no_wrap=True),
            padding=(0, 2, 0, 0),
        )
        table.add_row(*cells, style=style)
        console.print(table)

    def write(prediction: "Prediction") -> None:
        if prediction.error is not None:
            console.print(prediction.error, style="red")
            return
        named = [*zip(prediction.labels, (f"{share:.1%}" for share in prediction.probabilities), strict=True)]
        (label, share), *further = named or [("-", "")]  # none is probable enough
        name = str(prediction.path)
        name = name if len(name) <= file_width else "…" + name[1 - file_width :]  # the end of a path says most
        write_row(name, label, share, ", ".join(map(" ".join, further)))

    write_row("file", "label", "probability", "further", style="bold")
    return write
