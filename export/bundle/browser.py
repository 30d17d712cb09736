"""onnxruntime for browsers: npm's package, one version of it, taken when a user asks for it."""

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from fastloaa.export.onnx_file import MissingPackageError
from fastloaa.files import FileError, replacing
from fastloaa.inputs import check_path

ONNXRUNTIME_WEB = "1.30.0"
# `npm view onnxruntime-web@1.30.0 dist.integrity`
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
ARCHIVE = f"onnxruntime-web-{ONNXRUNTIME_WEB}.tgz"
PARTS = ("dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.wasm")
"""Those that run models on the CPU; no others are taken out of the archive."""


def fetch_onnxruntime_web(folder: str | Path) -> Path:
    """Have npm fetch the package's archive; the one that is in the folder already is taken.

    Raises:
        MissingPackageError: there is no npm, or it does not get the package.
    """
    archive = Path(folder) / ARCHIVE
    if archive.is_file():
        return archive
    npm = shutil.which("npm")
    package = f"onnxruntime-web@{ONNXRUNTIME_WEB}"
    if npm is None:
        raise MissingPackageError(f"npm is not installed, and {package} comes from it; install Node.js")
    archive.parent.mkdir(parents=True, exist_ok=True)
    packed = subprocess.run(
        [npm, "pack", "--silent", "--ignore-scripts", package], cwd=archive.parent, capture_output=True, text=True
    )
    if packed.returncode or not archive.is_file():
        reason = " ".join(packed.stderr.split()) or "no archive came of it"
        raise MissingPackageError(f"npm pack {package} failed: {reason[:200]}")
    return archive


def put_onnxruntime_web(source: str | Path, folder: Path) -> None:
    """Unpack what a page needs of the archive, "npm" for one that npm fetches now.

    Raises:
        FileError: another file than npm's archive of this version.
        MissingPackageError: npm is asked for and not there.
    """
    if str(source) == "npm":
        with tempfile.TemporaryDirectory() as downloads:
            put_onnxruntime_web(fetch_onnxruntime_web(downloads), folder)
        return
    check_path(source)
    source = Path(source)
    made_by = f"npm pack onnxruntime-web@{ONNXRUNTIME_WEB}"
    if not source.is_file():
        raise FileError(f"{source}: no such file; expected the archive that `{made_by}` makes")
    content = hashlib.sha512(source.read_bytes()).digest()
    if f"sha512-{base64.b64encode(content).decode()}" != INTEGRITY:
        raise FileError(f"{source}: not the archive of onnxruntime-web {ONNXRUNTIME_WEB}; run `{made_by}`")
    with tarfile.open(source) as archive:
        for part in PARTS:
            member = archive.extractfile(f"package/{part}")
            assert member is not None  # the archive is the one that was looked at
            with replacing(folder / Path(part).name) as temporary, temporary.open("wb") as file:
                shutil.copyfileobj(member, file)
