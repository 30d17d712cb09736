"""Small sound files that the data tests are made of."""

from pathlib import Path

import numpy as np
import soundfile


def write_tone(path: Path, hertz: float = 440.0, seconds: float = 0.05, rate: int = 16000) -> Path:
    """A sine of amplitude 0.5; the suffix chooses the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * rate)) / rate
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * hertz * time), rate)
    return path


def write_esc50(root: Path, rows: list[str], header: str = "filename,fold,target,category,esc10,src_file,take") -> Path:
    """ESC-50's layout with these lines in `meta/esc50.csv` and a tone for each file that they name."""
    (root / "meta").mkdir(parents=True)
    (root / "meta" / "esc50.csv").write_text("\n".join([header, *rows]) + "\n")
    for row in rows:
        write_tone(root / "audio" / row.split(",")[0])
    return root
