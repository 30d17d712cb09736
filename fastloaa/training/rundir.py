"""The directory of a run: what it holds, and whether a recipe may go on in it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fastloaa.files import check_utf8, leftover_prefix
from fastloaa.files.locks import locked
from fastloaa.methods import METHODS
from fastloaa.training.checkpoint import Checkpoint
from fastloaa.training.errors import RunError
from fastloaa.training.recipe import Recipe


class RunDirectory:
    """Names of a run's files: `recipe.yaml`, `metrics.jsonl` (a line per epoch) and what trackers write beside it;
    `checkpoint.safetensors` until it has finished; then `result.json`, the trained weights, `curves.png` and, where
    each clip has one label, `confusion.png` of the test clips.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.recipe = self.path / "recipe.yaml"
        self.metrics = self.path / "metrics.jsonl"
        self.result = self.path / "result.json"
        self.checkpoint = self.path / "checkpoint.safetensors"
        self.curves = self.path / "curves.png"
        self.confusion = self.path / "confusion.png"
        self.csv = self.path / "metrics.csv"
        self.tensorboard = self.path / "tensorboard"

    def weights(self, recipe: Recipe) -> Path:
        """The trained weights."""
        return self.path / METHODS[recipe.method].weights_file

    @contextmanager
    def locked(self) -> Iterator[None]:
        """While the block runs, this process alone may write to the directory, which is made if it is not there.

        Raises:
            FileError: the path is not UTF-8.
            RunError: it holds something else than a run.
            LockedError: another process is at work in it.
            WriteError: it cannot be made.
        """
        self._check_ours()
        is_new = not self.path.exists()
        try:
            with locked(self.path, self.path / ".lock"):
                yield
        finally:
            if is_new:
                with suppress(OSError):  # not empty: there is a run in it
                    self.path.rmdir()

    def begun(self, recipe: Recipe) -> Checkpoint | None:
        """Where the run of `recipe` in the directory stands, None before its first checkpoint; nothing is changed.

        Raises:
            RunError: it holds a finished run, one of another recipe, or something else than a run.
            FileError: the checkpoint is damaged, or the path is not UTF-8.
        """
        self._check(recipe)
        return Checkpoint.load(self.checkpoint) if self.checkpoint.exists() else None

    def claim(self, recipe: Recipe, overwrite: bool = False) -> None:
        """Prepare the directory for a run of `recipe`, as late as can be: what it overwrites is gone then.

        Args:
            overwrite: remove the files of the run that is there, whichever it is.

        Raises:
            RunError, FileError: as `begun`.
        """
        self._check_ours()
        if overwrite:
            for file in self._files():
                file.unlink(missing_ok=True)
        self._check(recipe)
        recipe.save(self.recipe)
        for file in (self.recipe, *self._files()):  # what a kill left half written
            for leftover in self.path.glob(f"{leftover_prefix(file)}*"):
                shutil.rmtree(leftover, ignore_errors=True)

    def _check(self, recipe: Recipe) -> None:
        """Raise RunError unless a run of `recipe` may begin or go on here."""
        self._check_ours()
        if self.result.exists():
            raise RunError(f"{self.path}: holds a finished run; give another folder, or --overwrite to train it anew")
        if self.checkpoint.exists():
            self._check_same(Recipe.load(self.recipe), recipe)

    def _check_ours(self) -> None:
        check_utf8(self.path)
        if self.path.exists() and not self.recipe.exists() and (not self.path.is_dir() or self._visible()):
            raise RunError(f"{self.path}: exists and is no run of fastloaa; give a new or empty folder")

    def _check_same(self, before: Recipe, now: Recipe) -> None:
        for name, value in before.to_dict().items():
            if value != now.to_dict()[name]:
                raise RunError(
                    f"{self.path}: holds an unfinished run with {name} {value!r}, now {now.to_dict()[name]!r}; give "
                    f"another folder, the old value to go on, or --overwrite"
                )

    def _files(self) -> list[Path]:
        """All that a run may have written besides its recipe."""
        weights = {self.path / method.weights_file for method in METHODS.values()}
        events = self.tensorboard.glob("events.out.tfevents.*")
        return [self.result, self.checkpoint, self.metrics, self.curves, self.confusion, self.csv, *weights, *events]

    def _visible(self) -> list[Path]:
        return [entry for entry in self.path.iterdir() if not entry.name.startswith(".")]
