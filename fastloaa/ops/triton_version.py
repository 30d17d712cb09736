"""Whether there is a Triton that the kernels can be written in: the one place that decides."""

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion

SUPPORTED = SpecifierSet(">=3.2,<4")  # of torch 2.6
COMPILING = SpecifierSet(">=3.4")  # the compiler of 3.2 aborts the process on these kernels; 3.3 has not been tried


def obstacle() -> str | None:
    """Why Triton cannot be used, None if it can: it or what it needs is not there, or its version is not `SUPPORTED`.

    Raises:
        ImportError, AttributeError, ...: whatever goes wrong within a Triton that is there. That is a fault to be
            shown, not a missing package.
    """
    try:
        import triton
    except ModuleNotFoundError as error:
        if error.name == "setuptools":  # 3.2 imports it, and does not bring it
            return "the package triton needs setuptools, which is not installed (pip install setuptools)"
        if error.name != "triton":
            raise
        return "the package triton is not installed"
    version = getattr(triton, "__version__", None)
    if version is None and getattr(triton, "__file__", None) is None:  # any folder of that name on the path
        return f"the package triton is not installed (the folder {next(iter(triton.__path__))} is none)"
    try:
        supported = SUPPORTED.contains(str(version), prereleases=True)
    except InvalidVersion:
        supported = False
    return None if supported else f"triton {version} is installed, and fastloaa needs triton{SUPPORTED}"


def compiling_obstacle() -> str | None:
    """Why kernels may only be interpreted, None if they may be compiled."""
    import triton

    if COMPILING.contains(triton.__version__, prereleases=True):
        return None
    return f"triton {triton.__version__} is installed, and compiling the kernels needs triton{COMPILING}"


NO_TRITON: str | None = obstacle()
NOT_COMPILED: str | None = NO_TRITON or compiling_obstacle()
