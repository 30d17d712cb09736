"""Which releases of NVIDIA Triton Inference Server carry which onnxruntime."""

from packaging.version import Version

# onnxruntime and the first release with it: `ort_version` (before 24.12 the third entry of TRITON_VERSION_MAP) in
# build.py of github.com/triton-inference-server/server, branches r24.06 to r26.08. Earlier releases' onnxruntime
# backend does not know the accelerator "cuda", by which the bundle's configuration turns TF32 off.
RELEASES = {
    "1.18.0": "24.06",
    "1.18.1": "24.07",
    "1.19.0": "24.08",
    "1.19.2": "24.09",
    "1.20.1": "24.12",
    "1.21.0": "25.03",
    "1.22.0": "25.05",
    "1.23.0": "25.08",
    "1.23.1": "25.10",
    "1.23.2": "25.11",
    "1.24.1": "26.02",
    "1.24.2": "26.03",
    "1.24.4": "26.04",
    "1.27.0": "26.07",
    "1.28.0": "26.08",
}


def first_release(onnxruntime: str) -> str | None:
    """The first release whose onnxruntime is at least this version, such as "25.08"; None if none is known."""
    needed = Version(onnxruntime)
    return next((release for carried, release in RELEASES.items() if Version(carried) >= needed), None)
