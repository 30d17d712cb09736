"""Notes on the user's files, in one line."""

import sys
import warnings
from typing import Any


def one_line_notes() -> None:
    """Show fastloaa's own warnings, such as `AudioWarning`, as `note: ...` on stderr, without a line of code."""
    others = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if category.__module__.startswith("fastloaa."):
            print(f"note: {message}", file=sys.stderr)
        else:
            others(message, category, *place, **more)

    warnings.showwarning = show
