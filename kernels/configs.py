"""Launch settings, frozen: nothing is tuned when a user first calls. `python bench/tune.py` makes other tables."""

from dataclasses import dataclass

MAX_COLUMNS = 256
"""Packed columns (taps * r) of one launch; wider adapters take several, each with a part of the hidden rows."""


@dataclass(frozen=True)
class Setting:
    """How one kernel is launched: tokens and channels of its blocks, warps, and stages of the software pipeline."""

    block_tokens: int
    block_channels: int
    warps: int
    stages: int


# Keys: (kernel, bytes of an element, packed columns at most).
_SMALL_SHARED = {  # 99 KB of shared memory: sm_86, sm_89, sm_120
    ("tile", 2, 64): Setting(64, 64, 4, 2),
    ("tile", 2, 128): Setting(64, 64, 8, 2),
    ("tile", 2, 256): Setting(32, 32, 8, 2),
    ("tile", 4, 64): Setting(32, 32, 8, 2),
    ("tile", 4, 128): Setting(32, 16, 8, 2),
    ("tile", 4, 256): Setting(16, 16, 8, 2),
    ("weight_grad", 2, 256): Setting(32, 64, 8, 2),
    ("weight_grad", 4, 256): Setting(32, 32, 8, 2),
}
_LARGE_SHARED = {  # 163 KB and more: sm_80, sm_90, sm_100
    ("tile", 2, 64): Setting(128, 64, 8, 2),
    ("tile", 2, 128): Setting(128, 64, 8, 2),
    ("tile", 2, 256): Setting(32, 64, 8, 2),
    ("tile", 4, 64): Setting(32, 32, 8, 2),
    ("tile", 4, 128): Setting(32, 32, 8, 2),
    ("tile", 4, 256): Setting(16, 32, 8, 2),
    ("weight_grad", 2, 256): Setting(32, 64, 8, 2),
    ("weight_grad", 4, 256): Setting(32, 32, 8, 2),
}


def setting(kernel: str, capability: int, element_bytes: int, columns: int) -> Setting:
    """The frozen setting for a kernel ("tile" or "weight_grad") on a chip of compute capability 80, 86, 90, ..."""
    table = _LARGE_SHARED if capability in (80, 90, 100, 103) else _SMALL_SHARED
    width = next(w for k, b, w in sorted(table) if k == kernel and b == element_bytes and columns <= w)
    return table[kernel, element_bytes, width]


def all_settings(capability: int) -> dict[tuple[str, int, int], Setting]:
    """Every frozen setting of a chip, for tests and reports."""
    return dict(_LARGE_SHARED if capability in (80, 90, 100, 103) else _SMALL_SHARED)
