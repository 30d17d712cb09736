"""Files that are never half written, what is read from files, and locks."""

from fastloaa.files.hub import find_file, is_repository, not_there
from fastloaa.files.locks import LockedError, locked
from fastloaa.files.storage import (
    FileError,
    WriteError,
    check_tensors,
    check_utf8,
    leftover_prefix,
    making_folder,
    new_folder,
    read_json,
    read_safetensors,
    replacing,
    sha256,
    understanding,
    write_json,
    write_safetensors,
    writing,
    writing_temporary,
)

__all__ = [
    "FileError",
    "LockedError",
    "WriteError",
    "check_tensors",
    "check_utf8",
    "find_file",
    "is_repository",
    "leftover_prefix",
    "locked",
    "making_folder",
    "new_folder",
    "not_there",
    "read_json",
    "read_safetensors",
    "replacing",
    "sha256",
    "understanding",
    "write_json",
    "write_safetensors",
    "writing",
    "writing_temporary",
]
