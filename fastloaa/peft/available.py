"""Whether peft can be used."""

from importlib.metadata import version
from importlib.util import find_spec

from packaging.version import Version

from fastloaa.errors import FastloaaError

OLDEST = "0.21"  # the first in which a method says how its adapters' names stand in the keys of a state dict


class PeftMissing(FastloaaError, ImportError):
    """Hugging Face peft is not installed, or too old."""


def check_available() -> None:
    """Raise PeftMissing unless a peft that methods can be added to is installed."""
    advice = 'pip install --upgrade "fastloaa[peft]"'
    if find_spec("peft") is None:
        raise PeftMissing(f"fastloaa.peft needs Hugging Face peft, which is not installed: {advice}")
    if Version(version("peft")) < Version(OLDEST):
        raise PeftMissing(f"fastloaa.peft needs peft {OLDEST} or newer, this is {version('peft')}: {advice}")
