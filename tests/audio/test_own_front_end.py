"""A front end of one's own: a class and its line in the registry, and everything takes it by its name."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fastloaa import AST
from fastloaa.attention.figure import Places
from fastloaa.audio import SpectrogramFrontEnd, measure_statistics
from fastloaa.training import OptionError, Recipe
from fastloaa.training.build import build_front_end
from helpers import extending
from helpers.small import small_ast


@pytest.fixture(autouse=True)
def front_end() -> Iterator[type[SpectrogramFrontEnd]]:
    """The one of docs/extending.md, registered."""
    with extending.example("A front end") as names:
        yield names["TenMilliseconds"]


def test_models_take_it_and_bring_it_back(front_end: type[SpectrogramFrontEnd], tmp_path: Path) -> None:
    model = small_ast(front_end="ten-milliseconds", frames=64, mel_bins=32, sample_rate=8000, mean=-2.0, std=2.0)
    model.save(tmp_path / "model.safetensors")
    again = AST.load(tmp_path / "model.safetensors").eval()
    assert isinstance(again.front_end, front_end)
    waveform = torch.randn(2, 8000)
    with torch.no_grad():
        torch.testing.assert_close(again(again.front_end(waveform)), model(model.front_end(waveform)))


def test_what_follows_from_its_spectrogram(front_end: type[SpectrogramFrontEnd]) -> None:
    made = front_end(5, 40, 8000, mean=-3.0, std=0.25)
    waveform, lengths = torch.randn(2, 400), torch.tensor([400, 85])
    log_mel, valid = made.padded_log_mel(waveform, lengths)
    assert valid.sum(1).tolist() == [5, 1]
    torch.testing.assert_close(made(waveform, lengths), 2 * (log_mel + 3))
    torch.testing.assert_close(made(waveform, lengths, augment=torch.neg), 2 * (3 - log_mel))
    mean, std = measure_statistics(made, [(waveform, lengths)])
    values = torch.cat([log_mel[0], log_mel[1, :1]]).double()
    assert (mean, std) == pytest.approx((values.mean().item(), values.std(correction=0).item()), rel=1e-6)
    again = front_end(**made.config())
    torch.testing.assert_close(again(waveform, lengths), made(waveform, lengths))


def test_recipes_know_it_by_its_name(front_end: type[SpectrogramFrontEnd]) -> None:
    recipe = Recipe(data="sounds", front_end="ten-milliseconds")
    config = {"front_end": recipe.front_end, "frames": 64, "mel_bins": 32, "sample_rate": 8000}
    assert isinstance(build_front_end(config), front_end)
    with pytest.raises(OptionError, match="unknown front end 'ten-millisecond'; did you mean 'ten-milliseconds'"):
        Recipe(data="sounds", front_end="ten-millisecond")


def test_figures_have_its_axes() -> None:
    places = Places(small_ast(front_end="ten-milliseconds", mel_bins=32, sample_rate=8000))
    assert places.frame_edges()[-1] == pytest.approx(0.64)
    assert 0 < places.bin_edges()[0] < places.bin_edges()[-1] < 4000


def test_half_a_front_end_is_none() -> None:
    with pytest.raises(TypeError, match="abstract"):
        SpectrogramFrontEnd(5)  # type: ignore[abstract]
