"""Accuracy, loss and confusion against the model called clip by clip."""

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from fastloaa import AST
from fastloaa.data import Clip, DataError
from fastloaa.training import TrainingError, evaluate
from fastloaa.training.recipe import Loss
from helpers.small import small_ast
from helpers.tone_set import PITCHES, write_tones


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    """Six clips of each of three classes, of three lengths, one of them longer than the model's frames."""
    found = []
    for index, seconds in enumerate((0.2, 0.45, 1.5)):
        root = write_tones(tmp_path / str(index), clips=2, seconds=seconds)
        found += [Clip(p, (label,)) for label, hertz in enumerate(PITCHES) for p in sorted(root.glob(f"{hertz}Hz/*"))]
    return found


def single_logits(model: AST, clip: Clip) -> torch.Tensor:
    """Cut as the data set cuts: a clip's mean is that of what is left."""
    waveform = torch.from_numpy(soundfile.read(clip.path, dtype="float32")[0])[: model.front_end.samples]
    with torch.no_grad():
        return model(model.front_end(waveform[None]))[0]


@pytest.fixture
def model(clips: list[Clip]) -> AST:
    """Far from fair to all classes, but not so far that it always gives the same answer."""
    model = small_ast(num_classes=4, mean=-8.0, std=4.0)
    torch.nn.init.normal_(model.head[1].weight, std=1.0)
    mean = torch.stack([single_logits(model, clip) for clip in clips]).mean(0)
    torch.nn.init.zeros_(model.head[1].bias).data.sub_(mean)
    return model


@pytest.mark.parametrize("batch_size", [1, 4, 100])
@pytest.mark.parametrize("loss", ["cross_entropy", "bce"])
def test_against_single_clips(model: AST, clips: list[Clip], batch_size: int, loss: Loss) -> None:
    confusion = [[0] * 4 for _ in range(4)]
    losses = []
    for clip in clips:
        logits = single_logits(model, clip).double()
        confusion[clip.labels[0]][int(logits.argmax())] += 1
        if loss == "cross_entropy":
            losses.append(-logits.softmax(0).log()[clip.labels[0]].item())
        else:
            right = torch.arange(4) == clip.labels[0]
            losses.append(-torch.where(right, logits, -logits).sigmoid().log().mean().item())
    found = evaluate(model, clips, batch_size=batch_size, loss=loss)
    assert found.confusion == confusion
    assert found.accuracy == sum(confusion[i][i] for i in range(4)) / len(clips)
    assert found.loss == pytest.approx(sum(losses) / len(clips), rel=1e-4)
    assert (found.clips, found.broken) == (18, ())
    assert sum(max(row) < 6 for row in confusion) > 1  # the model's answers vary, or this shows little


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_views_of_long_clips_are_averaged(model: AST, clips: list[Clip], batch_size: int) -> None:
    """Those of 1.5 s have three windows, at their start, middle and end; the loss is that of the mean logits."""
    samples, losses = model.front_end.samples, []
    for clip in clips:
        waveform = torch.from_numpy(soundfile.read(clip.path, dtype="float32")[0])
        too_much = max(len(waveform) - samples, 0)
        starts = (0, too_much / 2, too_much) if too_much else (0,)
        windows = [waveform[round(start) : round(start) + samples] for start in starts]
        with torch.no_grad():
            logits = torch.stack([model(model.front_end(window[None]))[0] for window in windows]).double().mean(0)
        losses.append(-logits.log_softmax(0)[clip.labels[0]].item())
    found = evaluate(model, clips, batch_size=batch_size, views=3)
    assert found.clips == 18
    assert found.loss == pytest.approx(sum(losses) / len(clips), rel=1e-3)
    assert abs(found.loss - evaluate(model, clips).loss) > 1e-2 * found.loss


def test_several_labels(model: AST, clips: list[Clip]) -> None:
    two = [Clip(clip.path, (clip.labels[0], 3)) for clip in clips]
    found = evaluate(model, two, batch_size=5, loss="bce", multi_label=True)
    assert found.accuracy is None
    assert found.positives == [6, 6, 6, 18]
    assert found.average_precision[3] == 1.0
    logits = torch.stack([single_logits(model, clip) for clip in clips]).double()
    targets = torch.zeros(18, 4, dtype=torch.float64)
    for row, clip in enumerate(two):
        targets[row, list(clip.labels)] = 1
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets).item()
    assert found.loss == pytest.approx(expected, rel=1e-4)


def test_broken_files_do_not_count(model: AST, clips: list[Clip]) -> None:
    whole = evaluate(model, clips[1:])
    clips[0].path.write_text("not a sound")
    for batch_size in (1, 5):  # 1: a batch without a readable file
        found = evaluate(model, clips, batch_size=batch_size)
        assert (found.clips, found.confusion) == (whole.clips, whole.confusion)
        assert len(found.broken) == 1
        assert str(clips[0].path) in found.broken[0]
    with pytest.raises(DataError, match="1 of 1 files could not be read"):
        evaluate(model, clips[:1])


def test_a_clip_with_a_broken_window_does_not_count(model: AST, clips: list[Clip]) -> None:
    long = next(index for index, clip in enumerate(clips) if soundfile.info(clip.path).frames > model.front_end.samples)
    whole = evaluate(model, [*clips[:long], *clips[long + 1 :]], views=3)
    samples, rate = soundfile.read(clips[long].path, dtype="float32")
    samples[12000:] = np.nan  # in two of the windows, which say so of different moments
    soundfile.write(clips[long].path, samples, rate, subtype="FLOAT")
    found = evaluate(model, clips, views=3)
    assert len(found.broken) == 1
    assert (found.clips, found.loss) == (whole.clips, pytest.approx(whole.loss, rel=1e-6))


@pytest.mark.parametrize("training", [False, True])
def test_the_mode_is_left_as_it_was(model: AST, clips: list[Clip], training: bool) -> None:
    """Also where parts of the model have another, as a frozen backbone may."""
    model.train(training)
    model.backbone.blocks[1].train(not training)
    before = [module.training for module in model.modules()]
    evaluate(model, clips[:2])
    assert [module.training for module in model.modules()] == before
    assert len(set(before)) == 2


def test_evaluation_mode_is_used(clips: list[Clip]) -> None:
    model = small_ast(
        num_classes=3, backbone_options={"depth": 2, "embed_dim": 48, "num_heads": 3, "proj_drop_rate": 0.9}
    )
    assert evaluate(model.train(), clips).loss == evaluate(model.eval(), clips).loss


def test_precision(model: AST, clips: list[Clip]) -> None:
    dtypes = []
    model.head[1].register_forward_hook(lambda module, _, out: dtypes.append(out.dtype))
    evaluate(model, clips, precision="bf16")
    evaluate(model, clips)
    assert dtypes == [torch.bfloat16, torch.float32]


def test_refusals(model: AST, clips: list[Clip]) -> None:
    with pytest.raises(DataError, match="has 2 labels, expected one; multi_label=True takes several"):
        evaluate(model, [Clip(clips[0].path, (0, 1))])
    with torch.no_grad():
        model.head[1].bias.fill_(math.nan)
    with pytest.raises(TrainingError, match="the model's loss is nan"):
        evaluate(model, clips)
