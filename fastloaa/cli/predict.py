"""`fastloaa predict`: what an exported model hears in sound files."""

import glob
import sys
from collections.abc import Iterator, Sequence
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastloaa.cli.answers import progress, table_writer, write_json
from fastloaa.errors import ArgumentError

if TYPE_CHECKING:  # what is heavy is imported where it is used, so that --help is quick
    from fastloaa.data.sounds import LeftOut
    from fastloaa.export import Prediction


class Pool(str, Enum):
    """One answer of many windows."""

    mean = "mean"
    max = "max"


class Format(str, Enum):
    """Of what is written."""

    jsonl = "jsonl"
    csv = "csv"
    parquet = "parquet"
    txt = "txt"
    png = "png"
    pdf = "pdf"
    svg = "svg"


def predict(
    model: Annotated[Path, typer.Argument(help="ONNX file that `fastloaa export` wrote.")],
    files: Annotated[
        list[str],
        typer.Argument(
            help="Sound files, folders of them, patterns such as 'sounds/*.ogg', or - for standard input; .npy and "
            ".npz files for a model that was trained on such."
        ),
    ],
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Most classes to name for each file; 3 where neither this nor --threshold is given."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Least probability of a class; 0.5 for models of several labels to a clip."),
    ] = None,
    hop: Annotated[
        float | None,
        typer.Option(help="Seconds from window to window of a recording; half a window if not given."),
    ] = None,
    pool: Annotated[
        Pool, typer.Option(help="Answer for a file: mean of its windows' probabilities, or max, for short sounds.")
    ] = Pool.mean,
    with_times: Annotated[bool, typer.Option("--timeline", help="Say what is heard when, window by window.")] = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="--timeline of a wav from a pipe that goes on, such as a microphone's.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write a table there: .parquet, .csv or .jsonl; killed, the same command goes on where it was. With "
            "--timeline .jsonl, .csv, .txt (labels for Audacity), .png, .pdf or .svg."
        ),
    ] = None,
    form: Annotated[Format | None, typer.Option("--format", help="If the name of --out does not say it.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Most windows in one run of the model.")] = 8,
    workers: Annotated[int, typer.Option(min=0, help="Threads that decode files beside the model.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each file, for scripts.")] = False,
) -> None:
    """Classify sound files with an exported model: all of a recording, however long it is.

    Answers come as they are found. A file that cannot be read is named and passed over; the exit code is then 1.

    Example: fastloaa predict sounds.onnx recordings/ 'more/*.ogg' --json
    or fastloaa predict sounds.onnx meeting.wav --timeline --out meeting.png
    or ffmpeg -v error -f alsa -i default -f wav - | fastloaa predict sounds.onnx - --stream
    """
    from fastloaa.cli import tables, timeline
    from fastloaa.data.sounds import LeftOut
    from fastloaa.export import Classifier
    from fastloaa.files import sha256

    with_times = with_times or stream
    if form and out is None and not with_times:
        raise ArgumentError("--format goes with --out or --timeline; --json gives a line of JSON for each file")
    if with_times and pool is not Pool.mean:
        raise ArgumentError("--pool makes one answer of many windows, and --timeline gives each its own; leave one out")
    kind = _format(out, form, as_json, timeline.FORMATS if with_times else tables.FORMATS)
    classifier, left_out = Classifier(model), LeftOut()
    paths = sound_files(files, left_out, log_mels=classifier.hearing.mel_bins is not None)
    if stream and (len(paths) != 1 or paths[0].is_file()):
        raise ArgumentError("--stream hears one pipe: give - for standard input, or the name of a pipe")
    for line in left_out.lines():
        print(f"left out: {line}", file=sys.stderr)

    def classify(paths: Sequence[Path]) -> "Iterator[Prediction]":
        return classifier.classify(paths, batch_size, top, threshold, hop=hop, pool=pool.value, workers=workers)

    if with_times:
        listener = timeline.Listener(classifier, hop, batch_size, top, threshold, stream)
        broken = timeline.write_timelines(listener, paths, out, kind)
    elif out is not None:
        about = {"model": sha256(model), "top": top, "threshold": threshold, "hop": hop, "pool": pool.value}
        broken = tables.write_table(paths, out, kind, about, classify)
    else:
        found, broken = classify(paths), 0  # what it refuses, it refuses before a table's head is printed
        write = write_json if kind == "jsonl" else table_writer(paths, classifier.metadata.labels)
        for prediction in progress(found, len(paths)):
            write(prediction)
            broken += prediction.error is not None
    if broken:
        print(f"{broken} of {len(paths)} files could not be read", file=sys.stderr)
        raise typer.Exit(1)


def _format(out: Path | None, form: Format | None, as_json: bool, known: Sequence[str]) -> str:
    """What is written: one of `known`, or "table" for a screen."""
    by_name = "" if out is None else out.suffix.lower().removeprefix(".")
    found = form.value if form else by_name or ("jsonl" if as_json else "table")
    if found not in known and (out or form):
        names = ", ".join(f".{name}" for name in known)
        raise ArgumentError(f"{out or '--format'}: give a name that ends in {names}, or one of these as --format")
    return found


def sound_files(arguments: Sequence[str], left_out: "LeftOut | None" = None, log_mels: bool = False) -> list[Path]:
    """Files as they are given, folders' sound files at any depth, and patterns that the shell left as they are.

    Patterns mean what they mean in a shell: `*` matches no hidden files, and a folder stands for the sounds in it.

    Args:
        left_out: is told what is passed over in folders, see `fastloaa.data.sounds.sounds_below`.
        log_mels: of folders take the stored spectrograms instead, `.npy` and `.npz`.

    Raises:
        FileNotFoundError: a folder without such files, or a pattern without matches.
    """
    from fastloaa.data.sounds import LeftOut, log_mels_below, sounds_below

    left_out = LeftOut() if left_out is None else left_out
    below, kind = (
        (log_mels_below, "log-mels (.npy or .npz); the model was trained on such, not on sounds")
        if log_mels
        else (sounds_below, "sound files (wav, flac, ogg, mp3, ...)")
    )
    found: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            clips = below(path, left_out)
            if not clips:
                passed_over = "".join(f"; {line}" for line in left_out.lines())
                raise FileNotFoundError(f"{argument}: a folder without {kind}{passed_over}")
        elif glob.has_magic(argument) and not path.exists():
            matches = sorted(set(map(Path, _matches(argument))))
            if not matches:
                raise FileNotFoundError(f"{argument}: no file matches this pattern")
            matched = (below(match, left_out) if match.is_dir() else [match] for match in matches)
            clips = list(dict.fromkeys(chain.from_iterable(matched)))
        else:
            clips = [path]
        found += clips
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
