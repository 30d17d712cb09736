"""A folder with all that serving an exported file takes; what goes into it stands in `files/`, as it is."""

from fastloaa.export.bundle.write import write_bundle

__all__ = ["write_bundle"]
