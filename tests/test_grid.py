"""Token grids: sizes, order, and what does not fit."""

import pytest

from fastloaa import TokenGrid


def test_sizes_of_the_papers_data_sets() -> None:
    frames_to_grid = {1024: (8, 64), 512: (8, 32), 128: (8, 8), 400: (8, 25)}
    for frames, (freq, time) in frames_to_grid.items():
        grid = TokenGrid.from_spectrogram(128, frames, 16, 16, prefix_tokens=2)
        assert (grid.freq_bins, grid.time_steps, grid.tokens) == (freq, time, freq * time + 2)
    overlapping = TokenGrid.from_spectrogram(128, 1024, 16, 10)
    assert (overlapping.freq_bins, overlapping.time_steps) == (12, 101)


def test_patch_and_stride_may_differ_by_axis() -> None:
    grid = TokenGrid.from_spectrogram(128, 100, (128, 2), (128, 1))
    assert (grid.freq_bins, grid.time_steps) == (1, 99)


def test_time_steps_follow_from_the_token_count() -> None:
    assert TokenGrid.from_tokens(2 + 8 * 25, 8, 2) == TokenGrid(8, 25, 2, "freq")


def test_memory_order() -> None:
    assert TokenGrid(8, 25, token_order="freq").rows_cols == (8, 25)
    assert TokenGrid(8, 25, token_order="time").rows_cols == (25, 8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TokenGrid.from_tokens(515, 8, 2), r"515 tokens .* leave 513 patches, .* freq_bins=8"),
        (lambda: TokenGrid.from_tokens(2, 8, 2), r"leave 0 patches"),
        (lambda: TokenGrid.from_tokens(10, 0), r"freq_bins=0"),
        (lambda: TokenGrid(0, 3), r"freq_bins=0, time_steps=3"),
        (lambda: TokenGrid(3, 3, -1), r"at least 0; got -1"),
        (lambda: TokenGrid(3, 3, 0, "row"), r"token_order .* got 'row'"),
        (lambda: TokenGrid.from_spectrogram(8, 512), r"8 mel bins x 512 frames is smaller than one patch of 16 x 16"),
        (lambda: TokenGrid.from_spectrogram(128, 512, 16, 0), r"at least 1, got patch=16, stride=0"),
    ],
)
def test_what_does_not_fit_is_said(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
