"""`fastloaa predict --timeline` and `--stream`: what is heard when, as lines, tables, Audacity labels and pictures."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from fastloaa.cli.answers import Named, csv_line, time_writer, top_of
from fastloaa.errors import ArgumentError
from fastloaa.files import replacing
from fastloaa.text import encodable, printable

if TYPE_CHECKING:  # what is heavy is imported where it is used, so that --help is quick
    from torch import Tensor

    from fastloaa.export import Classifier, Window
    from fastloaa.export.hearing import Stream

PICTURES = ("png", "pdf", "svg")
FORMATS = ("jsonl", "csv", "txt", *PICTURES)
_ALONE = ("txt", *PICTURES)  # a file for each recording
_BLOCK = 0.1  # seconds of a live sound that are waited for together, at most

Heard = tuple[float, float, Named]
"""From when to when, in seconds, and the classes that are named there."""


@dataclass(frozen=True)
class Listener:
    """Hears recordings window by window.

    Args:
        hop, batch_size, top, threshold: as `Classifier.timeline` and `Classifier.named` take them.
        live: recordings are heard while they arrive.
    """

    classifier: "Classifier"
    hop: float | None
    batch_size: int
    top: int | None
    threshold: float | None
    live: bool

    def open(self, path: Path) -> "Stream":
        """A recording, block by block."""
        block = min(_BLOCK, (self.hop or self.classifier.metadata.window / 2) / 2) if self.live else None
        return self.classifier.hearing.open(path, block)

    def windows(self, blocks: "Iterable[Tensor]") -> "Iterator[Window]":
        """What is heard in them; of a live sound each window at once."""
        return self.classifier.timeline(blocks, self.hop, 1 if self.live else self.batch_size)

    def hear(self, path: Path) -> Iterator[Heard]:
        """The windows of a recording, and what is named in each."""
        stream = self.open(path)
        try:
            for window in self.windows(stream):
                yield window.start, window.end, self.classifier.named(window.probabilities, self.top, self.threshold)
        finally:
            stream.close()

    def draw(self, path: Path, picture: Path) -> None:
        """`fastloaa.export.timeline_figure` of a recording."""
        from fastloaa.export.timeline_figure import TimelinePicture

        drawn, stream = TimelinePicture(self.classifier.metadata), self.open(path)
        stopped: KeyboardInterrupt | None = None
        try:
            for window in self.windows(drawn.listen(stream)):
                drawn.add(window)
        except KeyboardInterrupt as stop:
            if not self.live or drawn.is_empty:
                raise
            stopped = stop
        finally:
            stream.close()
        with replacing(picture) as temporary:
            drawn.figure(printable(path.name)).savefig(temporary, dpi=150)
        if stopped is not None:
            raise stopped


def write_timelines(listener: Listener, paths: Sequence[Path], out: Path | None, form: str) -> int:
    """Hear recordings and write what is heard: into one file, or labels and pictures of several into a folder.

    Args:
        out: its name; None: standard output.
        form: "table", for a screen, "jsonl", "csv", "txt" or one of `PICTURES`.

    Returns:
        How many recordings could not be read to their end. Each gets a line that says why; what was heard before stays,
        unless it was for a picture.

    Raises:
        ArgumentError: a form that does not fit the place.
        WriteError: a file cannot be written.
        KeyboardInterrupt: of a live sound, after what was heard is written.
    """
    if out is None and form in PICTURES:
        raise ArgumentError(f"a picture needs a file: add --out NAME.{form}")
    if form not in _ALONE or (len(paths) == 1 and not (out and out.is_dir())):
        return _write(listener, paths, out, form)
    if out is None or (out.suffix and not out.is_dir()):
        raise ArgumentError(
            f"{form} is of one recording, got {len(paths)}; give --out FOLDER --format {form}, for a file of each"
        )
    top = os.path.commonpath([path.absolute().parent for path in paths])
    broken = 0
    for path in paths:
        target = out / path.absolute().relative_to(top)
        broken += _write(listener, [path], target.with_name(f"{target.name}.{form}"), form)
    return broken


def _write(listener: Listener, paths: Sequence[Path], out: Path | None, form: str) -> int:
    """Into one place."""
    from fastloaa.audio import AudioError

    broken, stopped = 0, None
    with _opened(out) if form not in PICTURES else nullcontext(sys.stdout) as file:
        write = _writer(form, file, listener, out, len(paths) > 1)
        for path in paths:
            try:
                write(path)
            except AudioError as error:
                broken += 1
                if form == "jsonl":
                    print(json.dumps({"file": str(path), "error": str(error)}), file=file, flush=True)
                else:
                    print(printable(str(error)), file=sys.stderr)
            except KeyboardInterrupt as stop:
                if not listener.live:
                    raise
                stopped = stop
    if stopped is not None:
        raise stopped
    return broken


@contextmanager
def _opened(out: Path | None) -> Iterator[TextIO]:
    """What is written there appears when it is complete; standard output gets it at once."""
    if out is None:
        yield sys.stdout
        return
    with replacing(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        yield file


def _writer(form: str, file: TextIO, listener: Listener, out: Path | None, several: bool) -> Callable[[Path], None]:
    """What hears and writes a recording."""
    if form in PICTURES:
        assert out is not None
        return lambda path: listener.draw(path, out)
    if form == "table":
        return _table(listener, several)
    lines = {"jsonl": _json_lines, "csv": _csv_lines, "txt": _labels}[form]
    if form == "csv":
        print("file,start,end,label,probability", file=file)

    def write(path: Path) -> None:
        for line in lines(path, listener.hear(path)):
            print(line, file=file, flush=file is sys.stdout)

    return write


def _table(listener: Listener, several: bool) -> Callable[[Path], None]:
    write_row = time_writer(listener.classifier.metadata.labels)

    def write(path: Path) -> None:
        if several:
            print(printable(path))
        for start, end, named in listener.hear(path):
            write_row(start, end, named)

    return write


def _json_lines(path: Path, heard: Iterable[Heard]) -> Iterator[str]:
    """`{"file": ..., "start": ..., "end": ..., "top": [{"label": ..., "probability": ...}]}` for each window."""
    for start, end, named in heard:
        yield json.dumps({"file": str(path), "start": start, "end": end, "top": top_of(named)})


def _csv_lines(path: Path, heard: Iterable[Heard]) -> Iterator[str]:
    """file,start,end,label,probability: a line for each class that is named in a window."""
    for start, end, named in heard:
        where = encodable(str(path)), start, end
        if not named:
            yield csv_line(*where, "", "")
        for label, probability in named:
            yield csv_line(*where, label, probability)


def _labels(_path: Path, heard: Iterable[Heard]) -> Iterator[str]:
    """Audacity's: start, end and text with tabs between. Windows in a row that name a class are one label of it."""
    runs: dict[str, tuple[float, float, float]] = {}  # class -> start, end, largest probability

    def label(name: str) -> str:
        start, end, probability = runs.pop(name)
        return f"{start:.6f}\t{end:.6f}\t{printable(name)} {probability:.2f}"

    for start, end, named in heard:
        probabilities = dict(named)
        for ended in [name for name in runs if name not in probabilities]:
            yield label(ended)
        for name, probability in probabilities.items():
            begin, _, largest = runs.get(name, (start, end, 0.0))
            runs[name] = begin, end, max(largest, probability)
    for name in list(runs):
        yield label(name)
