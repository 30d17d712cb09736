"""A disk that takes no more, for everybody: root has no permissions to lack, and mounting is not for all."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The system refuses bytes beyond `size` of any file (EFBIG), through every library.

    Modules that are imported meanwhile leave no bytecode: Python 3.12 keeps what it could write of it, for good.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    writes_none, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        sys.dont_write_bytecode = writes_none
