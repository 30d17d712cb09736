"""How the tokens of a spectrogram transformer lie on the (frequency, time) grid."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from fastloaa.errors import ArgumentError
from fastloaa.kernels.call import Call

TokenOrder = Literal["freq", "time"]
_ORDERS = get_args(TokenOrder)


@dataclass(frozen=True)
class TokenGrid:
    """The token sequence of one clip: prefix tokens (cls, dist, registers), then `freq_bins * time_steps` patches.

    Args:
        freq_bins: patches along frequency, F.
        time_steps: patches along time, T.
        prefix_tokens: tokens before the first patch, P.
        token_order: "freq" (frequency-major, AST: patch (f, t) is token P + f*T + t) or "time" (time-major,
            AudioMAE: patch (f, t) is token P + t*F + f).

    Raises:
        ArgumentError: a size below one, a negative prefix, or an unknown order.

    Examples:
        >>> from fastloaa import TokenGrid
        >>> grid = TokenGrid.from_spectrogram(mel_bins=128, frames=512, patch=16, prefix_tokens=2)
        >>> grid
        TokenGrid(freq_bins=8, time_steps=32, prefix_tokens=2, token_order='freq')
        >>> grid.tokens
        258
        >>> TokenGrid.from_tokens(258, freq_bins=8, prefix_tokens=2) == grid
        True
    """

    freq_bins: int
    time_steps: int
    prefix_tokens: int = 0
    token_order: TokenOrder = "freq"

    def __post_init__(self) -> None:
        for name in ("freq_bins", "time_steps", "prefix_tokens"):
            if isinstance(size := getattr(self, name), (float, str)):
                raise ArgumentError(f"{name} is a whole number; got {size!r}")
        if self.freq_bins < 1 or self.time_steps < 1:
            raise ArgumentError(
                f"a token grid has at least one frequency bin and one time step, got freq_bins={self.freq_bins}, "
                f"time_steps={self.time_steps}; check the spectrogram's size against the patch size"
            )
        if self.prefix_tokens < 0:
            raise ArgumentError(
                f"prefix_tokens counts the tokens before the patches, at least 0; got {self.prefix_tokens}"
            )
        if self.token_order not in _ORDERS:
            raise ArgumentError(
                f'token_order is "freq" (frequency-major, as AST) or "time" (time-major), got {self.token_order!r}'
            )

    @property
    def patches(self) -> int:
        """Number of patch tokens, F*T."""
        return self.freq_bins * self.time_steps

    @property
    def tokens(self) -> int:
        """Number of all tokens, P + F*T."""
        return self.prefix_tokens + self.patches

    @property
    def rows_cols(self) -> tuple[int, int]:
        """The grid as it lies in memory, (slow axis, fast axis): (F, T) for frequency-major order, else (T, F)."""
        sizes = (self.freq_bins, self.time_steps)
        return sizes if self.token_order == "freq" else sizes[::-1]

    @classmethod
    def from_tokens(
        cls, tokens: int, freq_bins: int, prefix_tokens: int = 0, token_order: TokenOrder = "freq"
    ) -> "TokenGrid":
        """The grid of a sequence of `tokens` tokens; its time steps follow from the count.

        Raises:
            ArgumentError: the patches do not divide into `freq_bins` rows.
        """
        patches = tokens - prefix_tokens
        if patches < 1 or freq_bins < 1 or patches % freq_bins:
            raise ArgumentError(
                f"{tokens} tokens with prefix_tokens={prefix_tokens} leave {patches} patches, which do not divide into "
                f"freq_bins={freq_bins} rows of equal length; expected {prefix_tokens} + {freq_bins} * time_steps: "
                f"check freq_bins and prefix_tokens against the model"
            )
        return cls(freq_bins, patches // freq_bins, prefix_tokens, token_order)

    @classmethod
    def from_spectrogram(
        cls,
        mel_bins: int,
        frames: int,
        patch: int | tuple[int, int] = 16,
        stride: int | tuple[int, int] | None = None,
        prefix_tokens: int = 0,
    ) -> "TokenGrid":
        """The frequency-major grid of a `[frames, mel_bins]` spectrogram cut into patches (AST, section 2.1).

        Args:
            mel_bins, frames: size of the spectrogram.
            patch: patch size, one number or (frequency, time).
            stride: step between patches, `patch` (no overlap) when None.

        Raises:
            ArgumentError: the spectrogram is smaller than one patch, or a size is below one.
        """
        patch_f, patch_t = pair(patch)
        stride_f, stride_t = pair(patch if stride is None else stride)
        if min(patch_f, patch_t, stride_f, stride_t) < 1:
            raise ArgumentError(f"patch and stride are at least 1, got patch={patch}, stride={stride}")
        if mel_bins < patch_f or frames < patch_t:
            raise ArgumentError(
                f"a spectrogram of {mel_bins} mel bins x {frames} frames is smaller than one patch of "
                f"{patch_f} x {patch_t}; give more mel_bins or frames, or a smaller patch"
            )
        return cls((mel_bins - patch_f) // stride_f + 1, (frames - patch_t) // stride_t + 1, prefix_tokens)


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """(frequency, time) of a setting given as one number for both or as a pair.

    Raises:
        ArgumentError: something else.
    """
    try:
        first, second = value if isinstance(value, Sequence) else (value, value)
        return operator.index(first), operator.index(second)
    except (TypeError, ValueError):
        raise ArgumentError(f"expected a whole number or a pair (frequency, time) of them; got {value!r}") from None


def grid_of(call: Call) -> TokenGrid:
    """The grid of an adapter call; its time steps follow from the number of tokens."""
    return TokenGrid.from_tokens(
        call.x.shape[1], call.freq_bins, call.prefix_tokens, "time" if call.time_major else "freq"
    )
