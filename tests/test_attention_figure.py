"""The picture of attention maps: that its axes tell the truth."""

from io import BytesIO

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.image import imread
from torch import Tensor
from torchaudio.compliance.kaldi import get_mel_banks, mel_scale
from torchaudio.functional import melscale_fbanks

from fastloaa import adapt
from fastloaa.attention import AttentionError, attention_maps, token_attention, without_adapters
from fastloaa.attention.figure import Places, attention_figure, loudest_time
from fastloaa.audio import EpicSoundsFrontEnd
from helpers.small import small_ast, wake_adapters


def mesh_of(axes: Axes) -> QuadMesh:
    (mesh,) = (child for child in axes.get_children() if isinstance(child, QuadMesh))
    return mesh


def edges_of(axes: Axes) -> tuple[np.ndarray, np.ndarray]:
    """(seconds, Hz) between which the cells of a mesh lie."""
    coordinates = mesh_of(axes).get_coordinates()
    return coordinates[0, :, 0], coordinates[:, 0, 1]


def burst(at: float, seconds: float = 0.5) -> Tensor:
    """Faint noise with 50 ms of loud noise in it, 16 kHz."""
    waveform = torch.randn(round(seconds * 16000)) * 1e-3
    start = round(at * 16000)
    waveform[start : start + 800] *= 300
    return waveform


@pytest.mark.parametrize("rate", [16000, 24000])
def test_mel_bins_lie_where_kaldi_puts_them(rate: int) -> None:
    model = small_ast(sample_rate=rate)
    edges = Places(model).bin_edges()
    centres = get_mel_banks(128, 512, rate, 20.0, 0.0, 100.0, -500.0, 1.0)[1].flatten()
    assert (edges[:-1] < centres.numpy()).all()
    assert (centres.numpy() < edges[1:]).all()
    on_mel_axis = mel_scale(torch.from_numpy(edges))
    torch.testing.assert_close((on_mel_axis[:-1] + on_mel_axis[1:]) / 2, mel_scale(centres.double()), rtol=1e-5, atol=0)


def test_epic_sounds_has_axes_of_its_own() -> None:
    model = small_ast(sample_rate=24000)
    model.front_end = EpicSoundsFrontEnd(frames=64)
    edges = Places(model).bin_edges()
    filters = melscale_fbanks(48001, 0.0, 12000.0, 128, 24000, mel_scale="htk")  # at every 0.25 Hz
    centres = filters.argmax(0).numpy() * 0.25
    assert (edges[:-1] < centres).all()
    assert (centres < edges[1:]).all()
    np.testing.assert_allclose(Places(model).step_edges(), [0, 0.08, 0.16, 0.24, 0.32], atol=1e-12)
    waveform = torch.randn(4000)
    shown = mesh_of(attention_figure({"one": model}, waveform, [0.1]).axes[0]).get_array()
    magnitudes = model.front_end.padded_log_mel(waveform[None])[0][0].exp().numpy()
    np.testing.assert_allclose(shown[:, 0], 20 * np.log10(magnitudes[0]), atol=1e-3)  # type: ignore[index]


@pytest.mark.parametrize("hertz", [1000, 3000, 6500])
def test_a_tone_is_loudest_at_its_own_frequency(hertz: int) -> None:
    model = small_ast()
    tone = torch.sin(2 * torch.pi * hertz * torch.arange(8000) / 16000)
    loudest = int(model.front_end.padded_log_mel(tone[None])[0][0, 20].argmax())
    low, high = Places(model).bin_edges()[loudest : loudest + 2]
    assert low < hertz < high


def test_tokens_lie_where_their_patches_do() -> None:
    places = Places(small_ast(frames=64))
    np.testing.assert_allclose(places.step_edges(), [0, 0.16, 0.32, 0.48, 0.64], atol=1e-12)
    np.testing.assert_allclose(places.row_edges(), places.bin_edges()[::16])
    assert [places.step_at(time) for time in (0, 0.15, 0.16, 0.5, 0.63)] == [0, 0, 1, 3, 3]


def test_overlapping_patches_have_the_strides_width_around_their_centres() -> None:
    """Patch i of 16 frames every 10 covers frames 10i to 10i + 16, its centre is 10i + 8; 64 frames hold 5."""
    places = Places(small_ast(frames=64, stride=(16, 10)))
    np.testing.assert_allclose(places.step_edges(), [0.03, 0.13, 0.23, 0.33, 0.43, 0.53], atol=1e-12)
    assert [places.step_at(time) for time in (0, 0.12, 0.14, 0.52, 0.6)] == [0, 0, 1, 4, 4]


@pytest.mark.parametrize("time", [-0.1, 0.64, float("nan")])
def test_a_moment_that_the_model_does_not_hear(time: float) -> None:
    with pytest.raises(AttentionError, match=r"s is not in what the model hears; expected a time from 0 to 0\.64 s$"):
        Places(small_ast(frames=64)).step_at(time)


@pytest.mark.parametrize(("at", "middle"), [(0.05, 0.08), (0.2, 0.24), (0.36, 0.40)])
def test_loudest_time(at: float, middle: float) -> None:
    # Padding is 0, far above the log-mel of faint noise: it must not count as loud.
    assert loudest_time(small_ast(frames=64), burst(at)) == pytest.approx(middle)


def test_a_clip_shorter_than_a_window_has_no_loudest_time() -> None:
    with pytest.raises(AttentionError, match="300 samples is shorter than one window"):
        loudest_time(small_ast(frames=64), torch.randn(300))


def test_figure() -> None:
    model = adapt(small_ast(frames=64), bottleneck=4)
    wake_adapters(model)
    plain = without_adapters(model)
    assert plain is not None
    models, waveform = {"before": plain, "after $": model}, burst(0.2)
    figure = attention_figure(models, waveform, times=(0.1, 0.5, 0.12), layer=1, title="a $ clip.wav")
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    assert len(panels) == 6, "log-mel and two time steps for two models; 0.1 s and 0.12 s are in one step"
    spectrograms, maps = panels[:2], panels[2:]
    assert [axes.get_title() for axes in spectrograms] == ["before", "after $"]
    assert figure.get_suptitle().splitlines()[0] == "a $ clip.wav"
    assert "layer 1 (of 0 to 1)" in figure.get_suptitle()
    places = Places(model)
    log_mel, valid = model.front_end.padded_log_mel(waveform[None])
    for axes in spectrograms:
        shown = mesh_of(axes).get_array()
        assert isinstance(shown, np.ma.MaskedArray)
        np.testing.assert_array_equal(shown.mask, ~valid[0].numpy()[None].repeat(128, 0))
        np.testing.assert_allclose(
            shown.compressed(), 10 * np.log10(np.exp(log_mel[0, valid[0]].T.numpy())).ravel(), atol=1e-3
        )
        np.testing.assert_allclose(edges_of(axes)[0], np.arange(65) * 0.01)
        np.testing.assert_allclose(edges_of(axes)[1], places.bin_edges())
        assert axes.get_xlim() == pytest.approx((0, 0.64))
        assert axes.get_ylim() == pytest.approx(tuple(places.bin_edges()[[0, -1]]))
    log_mel = model.front_end(waveform[None])
    for index, axes in enumerate(maps):
        weights = attention_maps(list(models.values())[index % 2], log_mel, 1)
        expected = token_attention(weights, model.grid, (0, 3)[index // 2])[0]
        np.testing.assert_allclose(mesh_of(axes).get_array(), expected * 34, rtol=1e-5)
        np.testing.assert_allclose(edges_of(axes)[0], places.step_edges())
        np.testing.assert_allclose(edges_of(axes)[1], places.row_edges())
        assert f"{expected.sum():.0%} of it on patches" in axes.get_title()
    for before, after in (maps[:2], maps[2:]):
        assert mesh_of(before).get_clim() == mesh_of(after).get_clim()
    assert [axes.get_xlabel() for axes in panels[-2:]] == ["time in s"] * 2
    assert {axes.get_ylabel() for axes in panels[::2]} == {"frequency in Hz"}
    figure.savefig(picture := BytesIO(), format="png", dpi=50)
    picture.seek(0)
    assert imread(picture, format="png").shape[:2] == (
        int(50 * figure.get_figheight()),
        int(50 * figure.get_figwidth()),
    )


def test_ticks_say_hertz() -> None:
    figure = attention_figure({"one": small_ast(frames=64)}, burst(0.2))
    figure.draw_without_rendering()
    axes = figure.axes[0]
    labelled = {int(label.get_text()): label.get_position()[1] for label in axes.get_yticklabels()}
    assert labelled == {100: 100, 500: 500, 1000: 1000, 2000: 2000, 4000: 4000}


@pytest.mark.parametrize("other", [{"frames": 80}, {"stride": (16, 10)}])
def test_models_that_cannot_stand_side_by_side(other: dict[str, object]) -> None:
    models = {"first": small_ast(frames=64), "second": small_ast(**({"frames": 64} | other))}  # type: ignore[arg-type]
    with pytest.raises(AttentionError, match=r"^second: has another front end or grid than the first"):
        attention_figure(models, burst(0.2))
