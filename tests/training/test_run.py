"""Whole runs on tones: they learn, they finish with all their files, and they load again."""

import json
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console

from fastloaa import trainable_parameters
from fastloaa.data import Clip, DataError, load_splits
from fastloaa.data.clips import SPLITS
from fastloaa.training import OptionError, RunError, TrainingError, evaluate, load_run, run, train
from helpers.small import small_ast
from helpers.tone_set import PITCHES, small_recipe, write_tones

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("tones") / "data")


@pytest.mark.parametrize(("method", "lr", "epochs"), [("loaa", 5e-3, 12), ("probe", 3e-2, 30)])
def test_learns_the_tones_and_keeps_what_it_learnt(
    tones: Path, tmp_path: Path, method: str, lr: float, epochs: int
) -> None:
    recipe = small_recipe(tones, method=method, lr=lr, epochs=epochs, frames=None)
    result = train(recipe, tmp_path / "run", console=QUIET)
    assert result.test.accuracy >= 0.8  # of 6 clips of 3 classes: chance is 0.33
    assert result.test.clips == 6

    names = {"recipe.yaml", "metrics.jsonl", "result.json", "adapter.safetensors", "curves.png", "confusion.png"}
    assert {file.name for file in (tmp_path / "run").iterdir()} == names
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == asdict(result)
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["lr"] == lr

    model = load_run(tmp_path / "run")
    assert not model.training
    assert model.labels == tuple(sorted(f"{hertz}Hz" for hertz in PITCHES))
    assert model.front_end.frames == 32  # 0.3 s in whole patches of 16
    assert trainable_parameters(model) == result.trainable_parameters < result.total_parameters
    found = evaluate(model, load_splits(tones).test, batch_size=recipe.batch_size)
    assert (found.accuracy, found.loss) == (result.test.accuracy, result.test.loss)


def test_metrics_of_every_epoch(tones: Path, tmp_path: Path) -> None:
    result = train(small_recipe(tones, epochs=3, lr=1e-2, schedule_options={"min_lr": 1e-3}), tmp_path, console=QUIET)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["step"] for row in rows] == [5, 10, 15]  # 27 training clips in batches of 6
    # One epoch of warm-up, then a cosine from 1e-2 to 1e-3 after 10 steps: 9e-3 * (1 + cos(0.4 pi)) / 2 and so on.
    assert [row["lr"] for row in rows] == pytest.approx([1e-2, 1e-3 + 5.8905765e-3, 1e-3 + 2.2024566e-4], rel=1e-6)
    assert rows[result.chosen_epoch - 1]["validation_accuracy"] == result.validation_score
    for row in rows:
        assert row["clips_per_second"] == pytest.approx(27 / row["seconds"])
    assert result.seconds == pytest.approx(sum(row["seconds"] for row in rows))


def test_full_fine_tuning_starts_from_a_file_and_is_saved_whole(tones: Path, tmp_path: Path) -> None:
    small_ast().save(tmp_path / "backbone.safetensors")
    recipe = small_recipe(tones, method="full", lr=1e-3, weights=str(tmp_path / "backbone.safetensors"))
    result = train(recipe, tmp_path / "run", console=QUIET)
    assert result.trainable_parameters == result.total_parameters
    assert result.weights_file == "model.safetensors"
    (tmp_path / "backbone.safetensors").unlink()
    found = evaluate(load_run(tmp_path / "run"), load_splits(tones).test, batch_size=6)
    assert found.loss == result.test.loss


def test_all_augmentation_bce_clipping_and_bf16(tones: Path, tmp_path: Path) -> None:
    changes = {"loss": "bce", "mixup": 0.5, "freq_mask": 24, "time_mask": 16, "noise_and_roll": True, "grad_clip": 1.0}
    for precision in ("bf16", "fp32"):  # one after the other in one process
        recipe = small_recipe(tones, epochs=1, precision=precision, workers=1, **changes)
        result = train(recipe, tmp_path / precision, console=QUIET)
        assert result.precision == precision
        assert 0.1 < result.test.loss < 2.0


def test_several_labels_to_a_clip(tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tone is also labelled as high or low; the two labels are learnt by mAP."""
    plain = load_splits(tones, validation=0.2)
    classes = (*plain.classes, "high", "low")

    def labelled(clips: tuple[Clip, ...]) -> tuple[Clip, ...]:
        return tuple(replace(c, labels=(*c.labels, 4 if plain.classes[c.labels[0]] == "300Hz" else 3)) for c in clips)

    splits = replace(plain, classes=classes, **{name: labelled(getattr(plain, name)) for name in SPLITS})
    monkeypatch.setattr(run, "load_splits", lambda *_, **__: splits)
    recipe = small_recipe(tones, lr=5e-3, epochs=12, loss="bce")
    result = train(recipe, tmp_path / "run", console=QUIET)
    assert result.metric == "mAP"
    assert result.test.mAP > 0.8
    assert (result.test.accuracy, result.test.macro_accuracy, result.test.macro_f1) == (None, None, None)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert result.validation_score == max(row["validation_mAP"] for row in rows)
    assert {row["validation_accuracy"] for row in rows} == {None}
    trained = load_run(tmp_path / "run")
    assert (trained.probabilities, trained.multi_label) == ("sigmoid", True)
    assert evaluate(trained, splits.test, batch_size=6, multi_label=True).loss == result.test.loss  # of bce
    names = {"recipe.yaml", "metrics.jsonl", "result.json", "adapter.safetensors", "curves.png"}
    assert {file.name for file in (tmp_path / "run").iterdir()} == names  # no confusion.png

    for changes, message in (({"loss": "cross_entropy"}, "set loss=bce"), ({"metric": "accuracy"}, "set metric=mAP")):
        with pytest.raises(OptionError, match=message):
            train(recipe.replace(**changes), tmp_path / "other", console=QUIET)
    assert not (tmp_path / "other").exists()


def test_no_validation_means_the_last_epoch(tones: Path, tmp_path: Path) -> None:
    result = train(small_recipe(tones, validation=0), tmp_path, console=QUIET)
    assert (result.chosen_epoch, result.chosen_by, result.validation_score) == (2, "last epoch", None)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {row["validation_accuracy"] for row in rows} == {None}


def test_what_is_printed_away_from_a_terminal(tones: Path, tmp_path: Path) -> None:
    out = StringIO()
    train(small_recipe(tones), tmp_path, console=Console(file=out, force_terminal=False))
    data, measuring, model, note, *epochs = out.getvalue().splitlines()
    assert data == "data: 3 classes; clips: 27 train, 3 validation, 6 test"
    assert measuring == "measuring mean and standard deviation of 27 clips"
    assert "loaa: 9,459 of 80,163 parameters train; cpu, fp32" in model
    assert note.startswith("note: the frozen backbone is random")
    assert [line.split("  ")[0] for line in epochs] == ["epoch 1/2", "epoch 2/2"]


def test_broken_files_are_named_once_and_training_goes_on(tmp_path: Path) -> None:
    root = write_tones(tmp_path / "data")
    splits = load_splits(root)
    broken = [str(splits.train[0].path), str(splits.train[5].path), str(splits.validation[0].path)]
    broken.append(str(splits.test[0].path))
    for path in broken:
        Path(path).write_text("not a sound")
    out = StringIO()
    result = train(small_recipe(root, epochs=3, batch_size=1), tmp_path / "run", console=Console(file=out))
    assert sorted(line.split(":")[0] for line in result.broken_files) == sorted(broken)
    assert result.test.clips == 5
    for path in broken[:3]:
        assert out.getvalue().count(path) == 1
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["clips_per_second"] == pytest.approx(25 / rows[0]["seconds"])


def test_the_result_says_what_was_left_out(tmp_path: Path) -> None:
    root = write_tones(tmp_path / "data")
    (root / "300Hz" / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    result = train(small_recipe(root, epochs=1), tmp_path / "run", console=QUIET)
    assert result.left_out == ["links that lead nowhere: 1 (300Hz/gone.wav)"]
    assert json.loads((tmp_path / "run" / "result.json").read_text())["left_out"] == result.left_out


@pytest.mark.parametrize("measured", [True, False])
def test_all_broken_is_an_error(tmp_path: Path, measured: bool) -> None:
    root = write_tones(tmp_path / "data")
    for clip in load_splits(root).train:
        clip.path.write_text("not a sound")
    given = {} if measured else {"mean": -6.0, "std": 5.0}
    with pytest.raises(DataError, match="27 of 27 files could not be read"):
        train(small_recipe(root, **given), tmp_path / "run", console=QUIET)


def test_a_finished_run_and_overwriting(tones: Path, tmp_path: Path) -> None:
    recipe = small_recipe(tones, epochs=1)
    train(recipe, tmp_path / "run", console=QUIET)
    with pytest.raises(RunError, match="finished run"):
        train(recipe, tmp_path / "run", console=QUIET)
    before = {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()}
    for changes in ({"data": "missing"}, {"backbone": "vit_unknown"}, {"weights": "missing.pth"}):  # slips of the pen
        with pytest.raises((DataError, TrainingError)):
            train(recipe.replace(**changes), tmp_path / "run", overwrite=True, console=QUIET)
        assert {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()} == before
    assert train(recipe.replace(seed=1), tmp_path / "run", overwrite=True, console=QUIET).seed == 1


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"backbone": "vit_unknown"},
            TrainingError,
            "cannot be built: recipe: its backbone 'vit_unknown' is none of",
        ),
        ({"backbone": "resnet18", "backbone_options": {}}, TrainingError, "name of a timm VisionTransformer"),
        ({"backbone_options": {"dept": 2}}, TrainingError, "unexpected keyword argument 'dept'"),
        ({"weights": "missing.pth"}, TrainingError, "missing.pth: no such weights file"),
        ({"frames": 8}, TrainingError, "smaller than one patch"),
        ({"mel_bins": 2}, OptionError, "mel_bins is at least 4"),
        ({"precision": "fp16"}, OptionError, '"fp16" needs a CUDA device'),
        ({"data": "missing"}, DataError, "no such folder"),
        ({"test_fold": 2}, OptionError, "data has no folds, the recipe says test_fold 2; leave it out"),
    ],
)
def test_what_cannot_run(
    tones: Path, tmp_path: Path, changes: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        train(small_recipe(tones).replace(**changes), tmp_path / "run", console=QUIET)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_loading_what_cannot_be_loaded(tones: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no recipe\.yaml in it"):
        load_run(tmp_path)
    backbone, moved = tmp_path / "backbone.safetensors", tmp_path / "moved.safetensors"
    small_ast().save(backbone)
    run = tmp_path / "run"
    train(small_recipe(tones, weights=str(backbone)), run, console=QUIET)
    backbone.rename(moved)
    with pytest.raises(RunError, match=r"backbone\.safetensors are gone; say where they are with --weights PATH"):
        load_run(run)
    assert load_run(run, weights=moved).labels is not None
    torch.manual_seed(99)
    small_ast().save(moved)
    with pytest.raises(ValueError, match="was trained beside other frozen weights"):
        load_run(run, weights=moved)
    (run / "adapter.safetensors").unlink()
    with pytest.raises(RunError, match="the run has not finished"):
        load_run(run)


def test_loading_leaves_the_random_numbers_alone(tones: Path, tmp_path: Path) -> None:
    train(small_recipe(tones, epochs=1), tmp_path, console=QUIET)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_run(tmp_path)
    assert torch.equal(torch.rand(3), expected)
