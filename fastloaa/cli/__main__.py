"""`python -m fastloaa.cli`, for launchers that start a module: `accelerate launch -m fastloaa.cli train ...`."""

from fastloaa.cli import main

main()
