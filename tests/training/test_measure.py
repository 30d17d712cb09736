"""What is measured on the training clips."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from fastloaa.audio import FrontEnd
from fastloaa.data import Batch, Clip, ClipDataset, DataError, collate
from fastloaa.training.measure import measure_frames, measure_normalisation


def clips_of(folder: Path, seconds: list[float], amplitude: float = 0.1) -> list[Clip]:
    rng = np.random.default_rng(0)
    clips = []
    for number, length in enumerate(seconds):
        path = folder / f"{number}.wav"
        soundfile.write(path, amplitude * rng.standard_normal(round(length * 16000)), 16000, subtype="FLOAT")
        clips.append(Clip(path, (0,)))
    return clips


@pytest.mark.parametrize(
    ("seconds", "patch", "frames"),
    [
        ([1.28] * 3, 16, 128),  # exactly 8 patches
        ([1.2801] * 3, 16, 144),
        ([0.5] * 19 + [5.0], 16, 80),  # the 95th percentile lies at 0.5 + 0.05 * 4.5 = 0.725 s
        ([0.01], 16, 16),
        ([30.0], 16, 1024),
        ([30.0], 10, 1020),
    ],
)
def test_frames(tmp_path: Path, seconds: list[float], patch: int, frames: int) -> None:
    assert measure_frames(clips_of(tmp_path, seconds), patch) == frames


def test_frames_pass_over_broken_files(tmp_path: Path) -> None:
    clips = clips_of(tmp_path, [1.0, 1.0])
    clips[0].path.write_text("not a sound")
    assert measure_frames(clips, 16) == 112
    clips[1].path.unlink()
    with pytest.raises(DataError, match="none of 2 training clips can be read"):
        measure_frames(clips, 16)


def batches(clips: list[Clip], batch_size: int = 2) -> Iterator[Batch]:
    dataset = ClipDataset(clips, 16000, 1)
    for start in range(0, len(clips), batch_size):
        yield collate([dataset[index] for index in range(start, min(start + batch_size, len(clips)))])


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_normalisation_against_kaldi(tmp_path: Path, batch_size: int) -> None:
    clips = clips_of(tmp_path, [0.3, 0.5, 1.5, 0.2])
    clips.append(Clip(tmp_path / "broken.wav", (0,)))
    clips[-1].path.write_text("not a sound")
    values = []
    for clip in clips[:4]:
        waveform = torch.from_numpy(soundfile.read(clip.path, dtype="float32")[0])
        fbank = torchaudio.compliance.kaldi.fbank(
            (waveform - waveform.mean())[None],
            htk_compat=True,
            window_type="hanning",
            num_mel_bins=128,
            dither=0.0,
            frame_shift=10,
            sample_frequency=16000,
        )
        values.append(fbank[:64].double().flatten())
    expected = torch.cat(values)
    mean, std = measure_normalisation(FrontEnd(64), batches(clips, batch_size), len(clips))
    assert mean == pytest.approx(expected.mean().item(), abs=1e-3)
    assert std == pytest.approx(expected.std(correction=0).item(), abs=1e-3)


def test_normalisation_refuses_what_cannot_be_measured(tmp_path: Path) -> None:
    silent = clips_of(tmp_path, [0.3, 0.3], amplitude=0.0)
    with pytest.raises(DataError, match="all training clips are silent"):
        measure_normalisation(FrontEnd(64), batches(silent), len(silent))
    short = clips_of(tmp_path, [0.01])
    with pytest.raises(DataError, match="no clip is as long as one window"):
        measure_normalisation(FrontEnd(64), batches(short), len(short))
    for clip in silent:
        clip.path.write_text("not a sound")
    with pytest.raises(DataError, match="2 of 2 files could not be read"):
        measure_normalisation(FrontEnd(64), batches(silent), len(silent))
