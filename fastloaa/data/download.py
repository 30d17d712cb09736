"""Public data sets from their official places, for those who ask for them."""

import http.client
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from gzip import BadGzipFile
from pathlib import Path, PureWindowsPath
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from fastloaa.data.clips import DataError
from fastloaa.files import WriteError, making_folder, new_folder, sha256, write_json, writing
from fastloaa.files.locks import locked

RECORD_FILE = "download.json"
TIMEOUT = 60.0  # seconds without a byte
_CHUNK = 1 << 20

Report = Callable[[int, int | None], None]
"""Called with the bytes that are there and the bytes there will be, None if the server does not say."""


@dataclass(frozen=True)
class Source:
    """Where a data set is.

    Attributes:
        name: for people.
        url: of a zip or tar archive.
        sha256: of the archive, where it is known for certain; the one that arrives is written down in any case.
        about: size and licence.
    """

    name: str
    url: str
    sha256: str | None
    about: str


SOURCES = {
    # GitHub packs this archive when it is asked for, so that no checksum of it lasts; each file in it has its CRC-32.
    "esc50": Source(
        "ESC-50", "https://github.com/karolpiczak/ESC-50/archive/refs/heads/master.zip", None, "0.6 GB, CC BY-NC"
    ),
    # The checksum is the one that torchaudio.datasets.SPEECHCOMMANDS checks.
    "speechcommands": Source(
        "Speech Commands V2",
        "https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
        "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
        "2.4 GB, CC BY 4.0",
    ),
}

ELSEWHERE = {
    "epic-sounds": (
        "the tables are at https://github.com/epic-kitchens/epic-sounds-annotations, "
        "whose README says how to get the sound (EPIC_audio.hdf5)"
    ),
    "audioset": (
        "the tables are at https://research.google.com/audioset/download.html, "
        "the sound is that of the YouTube videos they name"
    ),
}
"""Sets that a program cannot just fetch: name -> where a person gets them."""


def download(name: str, folder: str | Path, report: Report | None = None) -> Path:
    """Fetch a data set and unpack it into `folder`, which `load_splits` then reads.

    The archive is beside the folder, as `<folder>.part`, until all is done; an interrupted download goes on from there
    if the server allows it. `download.json` in the folder says where the data came from, and its SHA-256.

    Args:
        name: one of `SOURCES`.
        folder: to be made; it may exist if it is empty.
        report: called as bytes arrive.

    Raises:
        DataError: an unknown set or one of `ELSEWHERE`, or what `install` raises.
    """
    if name in ELSEWHERE:
        raise DataError(f"{name} cannot be fetched by a program: {ELSEWHERE[name]}")
    if name not in SOURCES:
        raise DataError(f"no data set {name!r} to download; expected one of {', '.join([*SOURCES, *ELSEWHERE])}")
    return install(SOURCES[name], Path(folder), report)


def install(source: Source, folder: Path, report: Report | None = None) -> Path:
    """`download` of any source.

    Raises:
        DataError: a folder with something in it, no connection or one that broke, another checksum than expected, or
            an archive that is damaged or reaches outside the folder.
        LockedError: another process is fetching it into that folder.
        WriteError: it cannot be written; what has arrived stays, and the same command goes on from there.
    """
    folder = new_folder(folder)
    with locked(folder, folder.with_name(f".{folder.name}.lock")):
        return _install(source, folder, report)


def _install(source: Source, folder: Path, report: Report | None) -> Path:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: not an empty folder; give a new one, or use what is there")
    archive = folder.with_name(f"{folder.name}.part")
    fetch(source.url, archive, report)
    found = sha256(archive)
    if source.sha256 not in (None, found):
        archive.unlink()
        raise DataError(f"{source.url}: SHA-256 {found}, expected {source.sha256}; {archive} is deleted, try again")
    with making_folder(folder) as temporary:
        root = unpack(archive, temporary.with_name("unpacked"))
        record = {
            "name": source.name,
            "url": source.url,
            "bytes": archive.stat().st_size,
            "sha256": found,
            "checked": source.sha256 is not None,
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        write_json(root / RECORD_FILE, record)
        root.rename(temporary)
    archive.unlink()
    return folder


def fetch(url: str, path: Path, report: Report | None = None) -> None:
    """Fetch a file over HTTP; what is at `path` already counts as its beginning.

    Raises:
        DataError: no connection, or one that ends early; what arrived stays.
        WriteError: it cannot be written; what arrived stays.
    """
    have = path.stat().st_size if path.exists() else 0
    request = Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with writing(path), urlopen(request, timeout=TIMEOUT) as response:
            # A server that cannot send the rest answers 200 and sends everything.
            total = _receive(response, path, have if response.status == 206 else 0, report)
    except WriteError:
        raise
    except HTTPError as error:
        if error.code == 416 and error.headers["Content-Range"] == f"bytes */{have}":
            return  # nothing is missing: the last attempt was interrupted after its last byte
        raise DataError(f"{url}: the server answers {error.code} {error.reason}; try again later") from error
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"{url}: {error}; check the connection, the same command goes on from here") from error
    if total is not None and (size := path.stat().st_size) != total:
        raise DataError(f"{url}: ended after {size} of {total} bytes; the same command goes on from here")


def _receive(response: http.client.HTTPResponse, path: Path, have: int, report: Report | None) -> int | None:
    """Put the body behind the first `have` bytes of the file; returns how long it should then be, if that is known."""
    length = response.headers["Content-Length"]
    total = None if length is None else have + int(length)
    with path.open("ab") as file:
        file.truncate(have)
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            have += len(chunk)
            if report:
                report(have, total)
    return total


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a zip or tar archive into the new `folder`; returns the folder in it that holds everything.

    Raises:
        DataError: neither kind, damaged, or with a file that would land outside the folder; it is then not unpacked.
    """
    if not hasattr(tarfile, "data_filter"):
        raise DataError("this Python unpacks archives without checking them; update it to 3.11.4 or newer")
    folder.mkdir(parents=True)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                for name in zipped.namelist():
                    # PureWindowsPath takes both kinds of slash, and drives.
                    if PureWindowsPath(name).anchor or ".." in PureWindowsPath(name).parts:
                        raise DataError(f"{archive}: {name!r} in it would land outside the folder; do not use it")
                zipped.extractall(folder)
        else:
            with tarfile.open(archive) as tarred:
                tarred.extractall(folder, filter="data")
    except tarfile.FilterError as error:
        raise DataError(f"{archive}: {error}; do not use it") from error
    except (tarfile.TarError, zipfile.BadZipFile, BadGzipFile, EOFError, zlib.error) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(":")
        raise DataError(f"{archive}: damaged, or neither zip nor tar ({reason}); delete it and try again") from error
    inside = list(folder.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder
