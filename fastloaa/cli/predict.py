"""`fastloaa predict`: what an exported model hears in sound files."""

import glob
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:  # what is heavy is imported where it is used, so that --help is quick
    from fastloaa.data.sounds import LeftOut
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
    from fastloaa.data.sounds import LeftOut
    from fastloaa.export import Classifier

    left_out = LeftOut()
    paths = sound_files(files, left_out)
    for line in left_out.lines():
        print(f"left out: {line}", file=sys.stderr)
    classifier = Classifier(model)
    write = _write_json if as_json else table_writer(paths, classifier.metadata.labels)
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


def sound_files(arguments: Sequence[str], left_out: "LeftOut | None" = None) -> list[Path]:
    """Files as they are given, folders' sound files at any depth, and patterns that the shell left as they are.

    Patterns mean what they mean in a shell: `*` matches no hidden files, and a folder stands for the sounds in it.

    Args:
        left_out: is told what is passed over in folders, see `fastloaa.data.sounds.sounds_below`.

    Raises:
        FileNotFoundError: a folder without sound files, or a pattern without matches.
    """
    from fastloaa.data.sounds import LeftOut, sounds_below

    left_out = LeftOut() if left_out is None else left_out
    found: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            sounds = sounds_below(path, left_out)
            if not sounds:
                passed_over = "".join(f"; {line}" for line in left_out.lines())
                raise FileNotFoundError(
                    f"{argument}: a folder without sound files (wav, flac, ogg, mp3, ...){passed_over}"
                )
        elif glob.has_magic(argument) and not path.exists():
            matches = sorted(set(map(Path, _matches(argument))))
            if not matches:
                raise FileNotFoundError(f"{argument}: no file matches this pattern")
            below = (sounds_below(match, left_out) if match.is_dir() else [match] for match in matches)
            sounds = list(dict.fromkeys(chain.from_iterable(below)))
        else:
            sounds = [path]
        found += sounds
    return found


def _matches(pattern: str) -> Iterator[str]:
    """`glob.glob(pattern, recursive=True)`, which would go round and round where links to folders do."""
    from fastloaa.data.sounds import folders_below

    parts = pattern.split("/")
    if "**" not in parts:
        yield from glob.glob(pattern)  # noqa: PTH207 (absolute ones too)
        return
    at = parts.index("**")
    before, after = "/".join(parts[:at]), "/".join(part for part in parts[at + 1 :] if part)
    for start in glob.glob(f"{before}/") if at else ["."]:  # noqa: PTH207
        if not after:
            yield start
            continue
        for folder in folders_below(Path(start)):
            yield from _matches(str(Path(glob.escape(str(folder)), after)))


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


def table_writer(paths: Sequence[Path], labels: Sequence[str]) -> Callable[["Prediction"], None]:
    """Print a table's head, and return what prints one row of it: rows appear as they come, not all at the end.

    Widths are of what a screen shows: Chinese characters, say, take two columns each.
    """
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Column, Table

    from fastloaa.text import printable

    console = Console(markup=False, emoji=False, highlight=False)  # [brackets] in file names are no markup
    file_width = max(4, *(cell_len(printable(path)) for path in paths))
    label_widths = [cell_len(printable(label)) for label in labels]
    if console.is_terminal:
        file_width = min(file_width, console.width // 2)
    else:
        console.width = file_width + 2 * sum(label_widths) + 10 * len(labels) + 50  # nothing is cut in a file or a pipe

    def write_row(*cells: str, style: str = "") -> None:
        table = Table.grid(
            Column(width=file_width, no_wrap=True),
            Column(width=max(5, *label_widths), no_wrap=True),
            Column(width=11, justify="right"),
            Column(no_wrap=True),
            padding=(0, 2, 0, 0),
        )
        table.add_row(*cells, style=style)
        console.print(table)

    def write(prediction: "Prediction") -> None:
        if prediction.error is not None:
            console.print(printable(prediction.error), style="red", soft_wrap=not console.is_terminal)
            return
        named = [printable(label) for label in prediction.labels]
        shares = [f"{probability:.1%}" for probability in prediction.probabilities]
        (label, share), *further = zip(named, shares, strict=True) if named else [("-", "")]  # none is probable enough
        name = printable(prediction.path)
        if cell_len(name) > file_width:  # the end of a path says most
            name = next(f"…{end}" for i in range(len(name)) if cell_len(end := name[i:]) < file_width)
        write_row(name, label, share, ", ".join(map(" ".join, further)))

    write_row("file", "label", "probability", "further", style="bold")
    return write
