"""The program `fastloaa`, which `python -m fastloaa` starts too: the command line, or a line about what it needs."""

import sys

from fastloaa.extras import MissingPackageError


def main() -> None:
    try:
        from fastloaa.cli import main as command_line
    except MissingPackageError as error:
        sys.exit(f"error: {error}")
    command_line()


if __name__ == "__main__":
    main()
