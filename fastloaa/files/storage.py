"""Files that are never half written: made beside their final name, flushed to the disk and renamed."""

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fastloaa.errors import FastloaaError
from fastloaa.inputs import check_path
from fastloaa.text import encodable

METADATA_KEY = "fastloaa"


class FileError(FastloaaError, ValueError):
    """A file that is missing, damaged or of another kind than expected."""


class WriteError(FastloaaError, OSError):
    """A file or folder that cannot be written: a full disk, no permission, a place that takes no files.

    Attributes:
        errno: the system's number for it, None where a library kept that to itself.
    """

    def __init__(self, path: str | Path, number: int | None, reason: str = "") -> None:
        reason = reason or (os.strerror(number) if number else "the system refuses it")
        super().__init__(f"{path}: cannot be written: {reason}; {_ADVICE.get(number, 'give another place')}")
        self.errno = number


_FREE = "free some space there, or give another place"
_ALLOWED = "give a place that you may write to"
_ADVICE: dict[int | None, str] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None), _FREE),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _ALLOWED),
    errno.EIO: "the disk may be failing",
    errno.ENAMETOOLONG: "give a shorter name",
}
_WHILE_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What writing to an open file can end with, where nothing names the file."""


@contextmanager
def writing(path: str | Path, purpose: str = "") -> Iterator[None]:
    """Whatever a library raises in the block because the system does not let it write `path` becomes one kind of error.

    An OSError that names another file is not of this writing and passes.

    Args:
        purpose: of a place that the user has not named, to go behind its name in the message.

    Raises:
        WriteError: naming `path`, whatever temporary file it was.
    """
    path = Path(path)
    try:
        yield
    except FastloaaError:
        raise
    except Exception as error:
        refused, number = _refusal(error, path)
        if not refused:
            raise
        raise WriteError(f"{path}{purpose}", number) from error


@contextmanager
def writing_temporary() -> Iterator[None]:
    """`writing` for files that the system's folder for temporary ones holds, whatever they are for.

    Raises:
        WriteError: naming that folder.
    """
    with writing(tempfile.gettempdir(), " (for temporary files; TMPDIR names another folder)"):
        yield


def _refusal(error: BaseException | None, path: Path) -> tuple[bool, int | None]:
    """Whether the system has refused to write `path`, and its number for that."""
    while error is not None:
        if isinstance(error, OSError):
            named = [Path(os.fsdecode(name)) for name in (error.filename, error.filename2) if name is not None]
            if any(_is_of(name, path) for name in named) or (not named and error.errno in _WHILE_WRITING):
                return True, error.errno
        elif isinstance(error, SafetensorError) and (match := re.search(r"os error (\d+)", str(error))):
            return True, int(match[1])  # Rust's text for an OSError
        elif type(error).__name__ == "LibsndfileError" and getattr(error, "code", None) == 2:
            return True, None  # its "System error", which does not say which
        error = error.__cause__ or error.__context__  # matplotlib's PDF stumbles over its own stream afterwards
    return False, None


def _is_of(name: Path, path: Path) -> bool:
    """Whether a file is `path`, a folder that it is in, or a temporary one for it."""
    return name in (path, *path.parents) or any(part.startswith(leftover_prefix(path)) for part in name.parts)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to `path` when the block ends well, deleted when it does not.

    It has the same file name, in a hidden folder of its own: writers choose a format by the name, and what they leave
    beside the file goes with it. The file is flushed to the disk before it is renamed, the folder after: whatever
    happens to the machine, the old file is there or the new one, whole. Missing folders are made.

    Raises:
        WriteError: the file cannot be written, or what is at `path` is a folder, a device or a pipe, which a file must
            not replace; what was there is as it was.
    """
    _check_replaceable(Path(path))
    with _beside(path) as temporary:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # some writers make files that only the user may read
        _flush(temporary)
        temporary.replace(path)


def _check_replaceable(path: Path) -> None:
    """Raise WriteError for anything but a file: the system would let its administrator rename one over /dev/null."""
    try:
        mode = path.stat().st_mode
    except OSError:  # nothing is there, or writing will say why
        return
    if stat.S_ISDIR(mode):
        raise WriteError(path, errno.EISDIR)
    if not stat.S_ISREG(mode):
        raise WriteError(path, errno.EEXIST, "it is a device, a pipe or a socket, and no file")


@contextmanager
def making_folder(path: str | Path) -> Iterator[Path]:
    """`replacing` for a folder, which the block makes: it appears at `path`, where an empty one may be, when complete.

    What the block puts beside the temporary path is deleted in any case.

    Raises:
        WriteError: it cannot be written, or as `new_folder`.
    """
    path = new_folder(path)
    with _beside(path) as temporary:
        yield temporary
        os.sync()  # file by file takes minutes where there are a hundred thousand
        if path.is_dir():  # and empty, or rmdir raises
            path.rmdir()
        temporary.rename(path)


def new_folder(path: str | Path) -> Path:
    """The path of a folder that is to be made, with a name of its own, as `..` has none.

    Raises:
        WriteError: it is the one that this process is in, which would be replaced by another of its name.
    """
    folder = Path(path)
    if folder.name in ("", ".."):
        folder = Path(os.path.abspath(folder))  # noqa: PTH100 (links stay what they are)
    if folder.is_dir() and folder.samefile(os.curdir):
        raise WriteError(path, errno.EBUSY, "it is the folder that this runs in")
    return folder


@contextmanager
def _beside(path: str | Path) -> Iterator[Path]:
    """The same name in a hidden folder beside `path`, deleted with all that is left in it."""
    path = Path(path)
    with writing(path), _made(path.parent):
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=leftover_prefix(path)))
        try:
            yield folder / path.name
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # not every file system can flush a folder
            _flush(path.parent)


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """`folder` with its parents; those that were missing go again where the block fails and leaves them empty."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with suppress(OSError):  # not empty, or not made
            for one in missing:
                one.rmdir()
        raise


def leftover_prefix(path: Path) -> str:
    """What the names of the hidden folders for `path` begin with; a killed process leaves them."""
    return f".{path.name[:40]}-"  # names have at most 255 bytes


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def write_json(path: str | Path, value: Any) -> None:
    """`value` as indented JSON."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def write_safetensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Tensors with `metadata` as JSON under the key that fastloaa reads back.

    Raises:
        FileError: the path is not UTF-8.
        WriteError: it cannot be written.
    """
    check_utf8(path)
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        save_file(contiguous, temporary, {METADATA_KEY: json.dumps(metadata)})


def read_json(path: str | Path) -> Any:
    """What a JSON file holds.

    Raises:
        FileError: missing, or not JSON in UTF-8.
    """
    path = Path(path)
    _check_is_file(path, "a JSON file")
    with understanding(path, "JSON"):
        return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def understanding(path: str | Path, what: str) -> Iterator[None]:
    """Take apart what a file holds: values that are missing, of another type or out of range mean that it is damaged.

    Args:
        what: the file should be.

    Raises:
        FileError: in place of whatever Python, or a class made of them, says of such values.
    """
    try:
        yield
    except FileError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        found = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        raise FileError(f"{path}: damaged, or not {what} ({found}); write or download it again") from error


def check_tensors(path: str | Path, expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Compare names and shapes of the tensors in a file with those of what they are for.

    Raises:
        FileError: they differ.
    """
    shapes, stored = ({name: tensor.shape for name, tensor in tensors.items()} for tensors in (expected, given))
    if wrong := {name for name, _ in shapes.items() ^ stored.items()}:
        raise FileError(
            f"{path}: damaged, {len(wrong)} tensors missing, unknown or of another shape, such as {min(wrong)}; "
            f"save it again"
        )


def check_utf8(path: str | Path) -> None:
    """Refuse a path that only some libraries open, before minutes are spent on what goes there.

    Raises:
        ArgumentTypeError: it is none.
        FileError: its bytes are not UTF-8.
    """
    check_path(path)
    if encodable(str(path)) != str(path):
        raise FileError(f"{path}: not UTF-8, and safetensors and onnxruntime open no such path; give another one")


def _check_is_file(path: Path, what: str) -> None:
    if not path.is_file():
        reason = "is a folder" if path.is_dir() else "is no regular file" if path.exists() else "no such file"
        raise FileError(f"{path}: {reason}; expected {what}")


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of a safetensors file and what fastloaa wrote into its metadata ({} for files of others).

    Raises:
        FileError: missing, not a safetensors file, or damaged; or the path is not UTF-8.
    """
    check_path(path)
    path = Path(path)
    _check_is_file(path, "a safetensors file")
    check_utf8(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
            if not isinstance(metadata, dict):
                raise ValueError(f"its metadata are {type(metadata).__name__}, expected a mapping")
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118 (not a dict)
    # What it makes of a tensor whose type PyTorch does not have, or of JSON that is deep or odd.
    except (SafetensorError, AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FileError(f"{path}: not a readable safetensors file ({reason}); save or download it again") from error
