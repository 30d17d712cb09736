"""The banks of mel filters against torchaudio's."""

import pytest
import torch
from torchaudio.compliance.kaldi import get_mel_banks
from torchaudio.functional import melscale_fbanks

from fastloaa.audio.filters import htk_filters, kaldi_filters

SIZES = [(16000, 512, 128), (24000, 1024, 64), (8000, 256, 23), (44100, 2048, 160)]


@pytest.mark.parametrize(("rate", "size", "mel_bins"), SIZES)
@pytest.mark.parametrize(("low", "high"), [(20.0, 4000.0), (0.0, 3000.0), (300.0, 1100.0)])
def test_kaldis(rate: int, size: int, mel_bins: int, low: float, high: float) -> None:
    expected, _ = get_mel_banks(mel_bins, size, rate, low, high, 100.0, -500.0, 1.0)
    given = kaldi_filters(torch.arange(size // 2) * (rate / size), low, high, mel_bins)
    torch.testing.assert_close(given, expected.T, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("rate", "size", "mel_bins"), SIZES)
def test_htks(rate: int, size: int, mel_bins: int) -> None:
    frequencies = torch.linspace(0, rate / 2, size // 2 + 1, dtype=torch.float64)
    expected = melscale_fbanks(size // 2 + 1, 0.0, rate / 2, mel_bins, rate, mel_scale="htk")
    given = htk_filters(frequencies, 0.0, rate / 2, mel_bins)
    torch.testing.assert_close(given.float(), expected, rtol=0, atol=1e-4)  # theirs is rounded to float32 on the way
