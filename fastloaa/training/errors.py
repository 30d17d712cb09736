"""What can go wrong in a run; each message is one line."""

from fastloaa.errors import FastloaaError


class TrainingError(FastloaaError, RuntimeError):
    """Training or evaluation cannot go on: a model that cannot be built, a loss that is not finite."""


class RunError(FastloaaError, ValueError):
    """A run directory that cannot be used: another recipe, a finished run, something else altogether."""
