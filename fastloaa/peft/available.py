"""Whether peft can be used."""

from importlib.metadata import version

from packaging.version import Version

from fastloaa.extras import MissingPackageError, needs

OLDEST = "0.21"  # the first in which a method says how its adapters' names stand in the keys of a state dict


def check_available() -> None:
    """Raise MissingPackageError unless a peft that methods can be added to is installed."""
    needs("peft")
    if Version(version("peft")) < Version(OLDEST):
        raise MissingPackageError(
            f"fastloaa.peft needs peft {OLDEST} or newer, this is {version('peft')}; "
            f"pip install --upgrade 'fastloaa[peft]'"
        )
