"""`fastloaa download`: a public data set from its official place."""

from pathlib import Path
from typing import Annotated

import typer


def download(
    name: Annotated[str, typer.Argument(help="esc50 (0.6 GB, CC BY-NC) or speechcommands (2.4 GB, CC BY 4.0).")],
    folder: Annotated[Path, typer.Argument(help="Where the data set shall be: a new folder.")],
) -> None:
    """Fetch a public data set, check it and unpack it; an interrupted download goes on when it is started again.

    For epic-sounds and audioset, it says where to get them.

    Example: fastloaa download esc50 data/esc50, then fastloaa train --data data/esc50 --out runs/esc50
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from fastloaa.data import load_splits
    from fastloaa.data.download import SOURCES
    from fastloaa.data.download import download as run

    console = Console(stderr=True)
    if source := SOURCES.get(name):
        console.print(f"{source.name}, {source.about}, from {source.url}", soft_wrap=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(name, total=None)
        run(name, folder, lambda have, total: progress.update(bar, completed=have, total=total))
    print(f"{folder}: {load_splits(folder).summary()}")
