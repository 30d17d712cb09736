"""Files that may be in a repository of Hugging Face's hub."""

import re
from pathlib import Path

from fastloaa.files.storage import FileError

_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def is_repository(given: str | Path) -> bool:
    """Whether `given` is the name of a repository, `owner/name`, and of nothing that there is here."""
    text = str(given)
    return bool(_REPOSITORY.fullmatch(text)) and not text.endswith(".safetensors") and not Path(text).exists()


def find_file(given: str | Path, name: str, revision: str | None = None) -> Path:
    """The file that is meant: `given` itself, the file `name` in the folder `given`, or in the repository `given`.

    Args:
        given: a path, or the name of a repository of the hub, `owner/name`, which is downloaded to the hub's cache.
        revision: of the repository: a branch, a tag or a commit; None: the newest.

    Raises:
        FileError: the repository or the file in it cannot be had.
    """
    if not is_repository(given):
        return Path(given) / name if Path(given).is_dir() else Path(given)
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(huggingface_hub.hf_hub_download(str(given), name, revision=revision))
    except (OSError, HFValidationError) as error:  # what the hub, the network and being offline raise
        raise FileError(not_there(given, name, error)) from error


def not_there(repository: str | Path, what: str, error: Exception) -> str:
    """A message for what could not be had from the hub."""
    reason = " ".join(str(error).split())[:300]
    return f"{repository}: no such file here, and {what} cannot be had from a repository of that name ({reason})"
