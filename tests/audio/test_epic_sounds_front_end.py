"""EPIC-SOUNDS' front end against numpy's Fourier transform of one clip at a time, and against torchaudio."""

import math
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor
from torchaudio.transforms import MelSpectrogram

from fastloaa.audio import EpicSoundsFrontEnd, SpecAugment


def noise(*samples: int, level: float = 0.3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [level * torch.randn(count, generator=generator) for count in samples]


def reference(clip: Tensor, frames: int = 400) -> np.ndarray:
    """The baselines' steps in float64: librosa's centred `stft` and HTK's mel filters, written out."""
    samples = np.pad(clip.double().numpy()[:47975], 1024)
    hann = np.pad(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(240) / 240), 904)
    spectrum = np.array([np.fft.rfft(samples[i : i + 2048] * hann) for i in range(0, len(samples) - 2047, 120)])
    edges = 700 * (10 ** (np.linspace(0, 2595 * math.log10(1 + 12000 / 700), 130) / 2595) - 1)
    bins = np.arange(1025) * 24000 / 2048
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    log_mel = np.log(np.abs(spectrum) @ np.maximum(0, np.minimum(rise, fall)).T + 1e-6)
    return np.pad(log_mel, ((0, frames - len(log_mel)), (0, 0)), "edge")


def test_equals_the_steps_of_the_baselines_on_clips_of_all_lengths() -> None:
    clips = noise(60000, 47975, 47880, 24000, 119, 1)
    batch = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True, padding_value=9.0)  # what is beyond must not count
    found = EpicSoundsFrontEnd()(batch, torch.tensor([len(clip) for clip in clips]))
    assert found.dtype == torch.float32
    assert found.shape == (6, 400, 128)
    for row, clip in zip(found, clips, strict=True):
        np.testing.assert_allclose(row, reference(clip), atol=1e-3)


def test_equals_torchaudios_mel_spectrogram() -> None:
    (clip,) = noise(47975)
    mel = MelSpectrogram(24000, 2048, 240, 120, n_mels=128, power=1, pad_mode="constant", mel_scale="htk")(clip)
    torch.testing.assert_close(EpicSoundsFrontEnd()(clip[None])[0], (mel + 1e-6).log().T, atol=1e-3, rtol=0)


def test_a_tone_lies_in_its_band() -> None:
    time = torch.arange(47975) / 24000
    tone = (0.5 * torch.sin(2 * math.pi * 3000 * time))[None]
    band = 2595 * math.log10(1 + 3000 / 700) / (2595 * math.log10(1 + 12000 / 700)) * 129 - 1
    assert abs(EpicSoundsFrontEnd()(tone)[0, 200].argmax().item() - band) < 1


def test_silence_is_the_floor() -> None:
    assert torch.allclose(EpicSoundsFrontEnd()(torch.zeros(1, 1000)), torch.tensor(math.log(1e-6)))


def test_valid_frames_are_those_of_the_clip() -> None:
    front_end = EpicSoundsFrontEnd(frames=10)
    assert front_end.samples == 1175
    _, valid = front_end.padded_log_mel(torch.zeros(3, 5000), torch.tensor([5000, 600, 1]))
    assert valid.sum(1).tolist() == [10, 6, 1]


def test_shorter_than_one_window_nothing_is_heard() -> None:
    """10 ms; clients of exported files refuse less."""
    assert EpicSoundsFrontEnd().shortest == 240
    assert EpicSoundsFrontEnd(sample_rate=16000).shortest == 160


def test_config_makes_the_same_front_end() -> None:
    front_end = EpicSoundsFrontEnd(frames=40, mel_bins=32, sample_rate=16000)
    again = EpicSoundsFrontEnd(**front_end.config())
    (clip,) = noise(2000)
    assert torch.equal(front_end(clip[None]), again(clip[None]))
    assert (front_end(clip[None]) - front_end.mean).div(2 * front_end.std).equal(front_end(clip[None]))
    assert not front_end.state_dict()


def test_half_precision_of_the_model_leaves_it_in_float32() -> None:
    (clip,) = noise(2000)
    front_end = EpicSoundsFrontEnd(frames=20)
    expected = front_end(clip[None])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(front_end.half()(clip[None]), expected)


def test_augmentation_comes_last() -> None:
    (clip,) = noise(2000)
    front_end = EpicSoundsFrontEnd(frames=20)
    plain = front_end(clip[None])
    augmented = front_end(clip[None], augment=SpecAugment(27, 10, masks=2, fill="mean"))
    changed = augmented != plain
    assert changed.any()
    assert torch.allclose(augmented[changed], plain.mean())


def test_exports_without_an_fft(tmp_path: Path) -> None:
    front_end = EpicSoundsFrontEnd(frames=20).eval()
    any_size = torch.export.Dim.DYNAMIC
    torch.onnx.export(
        front_end,
        (torch.stack(noise(2000, 2000)),),
        tmp_path / "a.onnx",
        input_names=["waveform"],
        dynamic_shapes=({0: any_size, 1: any_size},),
        dynamo=True,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    for samples in (2000, 700, 3000):
        batch = torch.stack(noise(samples, samples, samples))
        (found,) = session.run(None, {"waveform": batch.numpy()})
        np.testing.assert_allclose(found, front_end(batch), atol=1e-3)


@pytest.mark.parametrize("options", [{"mel_bins": 0}, {"sample_rate": 100}, {"sample_rate": 400_000}])
def test_what_cannot_be_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"^mel_bins is at least 1 and 10 ms are 2 to 2048 samples, got "):
        EpicSoundsFrontEnd(**options)


def test_lengths_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected one length in samples for each of 2 clips"):
        EpicSoundsFrontEnd()(torch.zeros(2, 100), torch.tensor([100]))
