"""AudioSet's tables and AST's JSON files, both with several labels to a clip."""

import json
from pathlib import Path

import pytest
import torch

from fastloaa.data import Clip, ClipDataset, DataError, collate, load_audioset
from helpers.tones import write_tone

CLASSES = 'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/03v3yw,"Keys, jangling"\n2,/m/0k4j,"Car"\n'
HEADER = (
    "# Segments csv created Sun Mar  5 10:54:31 2017\n"
    "# num_ytids=3, num_segs=3, num_unique_labels=3, num_positive_labels=5\n"
    "# YTID, start_seconds, end_seconds, positive_labels\n"
)
TRAIN = (
    '-0RWZT-miFs, 420.000, 430.000, "/m/03v3yw,/m/0k4j"\n'
    'Y_1234567_9, 0.000, 10.000, "/m/09x0r"\n'
    'gone_gone_g, 30.000, 40.000, "/m/09x0r"\n'
)
EVAL = '3_30.000_4x, 30.000, 40.000, "/m/0k4j,/m/09x0r"\n'


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """Four ten-second clips that are much shorter here; of one there is no file."""
    root = tmp_path / "audioset"
    write_tone(root / "audio" / "balanced" / "Y-0RWZT-miFs.wav", 440)
    write_tone(root / "audio" / "balanced" / "Y_1234567_9_0.000_10.000.flac")
    write_tone(root / "audio" / "eval" / "3_30.000_4x_30.ogg")
    (root / "class_labels_indices.csv").write_text(CLASSES)
    (root / "balanced_train_segments.csv").write_text(HEADER + TRAIN)
    (root / "eval_segments.csv").write_text(HEADER + EVAL)
    return root


def write_json(file: Path, **labels_of: str) -> None:
    """`<name>.wav` -> labels, as AST's preparation scripts write them; the files too, except for `gone`."""
    entries = [{"video_id": "dummy", "wav": f"clips/{name}.wav", "labels": mids} for name, mids in labels_of.items()]
    for name in labels_of:
        if name != "gone":
            write_tone(file.parent / "clips" / f"{name}.wav")
    file.write_text(json.dumps({"data": entries}))


@pytest.fixture
def ast(tmp_path: Path) -> Path:
    root = tmp_path / "ast"
    root.mkdir()
    (root / "my_class_labels_indices.csv").write_text(CLASSES)
    write_json(root / "my_train_data.json", a="/m/09x0r,/m/0k4j", b="/m/03v3yw", c="/m/0k4j", d="/m/0k4j")
    write_json(root / "my_eval_data.json", e="/m/0k4j")
    return root


def test_official_tables_name_the_clips_that_have_files(official: Path) -> None:
    splits = load_audioset(official)
    assert (splits.name, splits.classes) == ("audioset", ("Speech", "Keys, jangling", "Car"))
    assert splits.train == (
        Clip(official / "audio" / "balanced" / "Y-0RWZT-miFs.wav", (1, 2)),
        Clip(official / "audio" / "balanced" / "Y_1234567_9_0.000_10.000.flac", (0,)),
    )
    assert splits.test == (Clip(official / "audio" / "eval" / "3_30.000_4x_30.ogg", (2, 0)),)
    assert (splits.validation, splits.multi_label) == ((), True)
    assert splits.left_out == ("clips that are listed but have no file: 1 (gone_gone_g)",)


def test_all_tables_of_training_segments_are_used(official: Path) -> None:
    table = 'AAAAAAAAAAA, 0.000, 10.000, "/m/0k4j"\n'
    (official / "unbalanced_train_segments.csv").write_text(HEADER + table)
    write_tone(official / "audio" / "AAAAAAAAAAA.wav")
    assert len(load_audioset(official).train) == 3


def test_targets_of_a_batch_have_every_label(official: Path) -> None:
    splits = load_audioset(official)
    dataset = ClipDataset(splits.train + splits.test, 16000, 3)
    batch = collate([dataset[i] for i in range(3)])
    assert torch.equal(batch.targets, torch.tensor([[0.0, 1, 1], [1, 0, 0], [1, 0, 1]]))


def test_ast_json_files_list_clips(ast: Path) -> None:
    splits = load_audioset(ast)
    assert [(clip.path.name, clip.labels) for clip in splits.train] == [
        ("a.wav", (0, 2)),
        ("b.wav", (1,)),
        ("c.wav", (2,)),
        ("d.wav", (2,)),
    ]
    assert splits.test == (Clip(ast / "clips" / "e.wav", (2,)),)
    assert (splits.validation, splits.left_out, splits.multi_label) == ((), (), True)


def test_validation_is_drawn_or_listed(ast: Path) -> None:
    drawn = load_audioset(ast, validation=0.3, seed=1)
    assert {2} <= {label for clip in drawn.validation for label in clip.labels}
    assert len(drawn.train) + len(drawn.validation) == 4
    write_json(ast / "my_valid_data.json", v="/m/09x0r")
    assert [clip.path.name for clip in load_audioset(ast).validation] == ["v.wav"]
    with pytest.raises(DataError, match=r"has a \*valid\*\.json of its own; leave validation=0\.3 out$"):
        load_audioset(ast, validation=0.3)


def test_numbered_json_files_are_folds(ast: Path) -> None:
    (ast / "my_train_data.json").unlink()
    (ast / "my_eval_data.json").unlink()
    for fold in (1, 2, 12):
        write_json(ast / f"esc_train_data_{fold}.json", **{f"t{fold}": "/m/0k4j"})
        write_json(ast / f"esc_eval_data_{fold}.json", **{f"e{fold}": "/m/0k4j"})
    assert [clip.path.name for clip in load_audioset(ast, test_fold=2).train] == ["t2.wav"]
    assert [clip.path.name for clip in load_audioset(ast, test_fold=12).test] == ["e12.wav"]
    with pytest.raises(DataError, match=r"no \*train\*\.json of fold 3; give the number of one that is there as the"):
        load_audioset(ast, test_fold=3)


def test_absolute_paths_stay(ast: Path, tmp_path: Path) -> None:
    far = write_tone(tmp_path / "far" / "x.wav")
    (ast / "my_eval_data.json").write_text(json.dumps({"data": [{"wav": str(far), "labels": "/m/0k4j"}]}))
    assert load_audioset(ast).test == (Clip(far, (2,)),)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("class_labels_indices.csv", "*class_labels_indices.csv"),
        ("balanced_train_segments.csv", "*train_segments.csv"),
        ("eval_segments.csv", "*eval_segments.csv"),
    ],
)
def test_a_missing_table_is_named_with_the_layout(official: Path, name: str, pattern: str) -> None:
    (official / name).unlink()
    with pytest.raises(DataError) as error:
        load_audioset(official)
    assert str(error.value).startswith(
        f"{official}: no {pattern}; expected AudioSet's layout, class_labels_indices.csv with either *train_segments"
    )


def test_a_missing_json_is_named(ast: Path) -> None:
    (ast / "my_eval_data.json").unlink()
    with pytest.raises(DataError, match=r"no \*eval\*\.json; expected AST's layout"):
        load_audioset(ast)


def test_a_split_without_a_single_file_is_refused(official: Path) -> None:
    for path in (official / "audio" / "balanced").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"no clip of balanced_train_segments\.csv has a file; expected them"):
        load_audioset(official)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", ': expected {"data": [{"wav": path, "labels": "mid,mid"}]}; correct it'),
        ('{"data": [{"wav": "clips/a.wav"}]}', ': expected {"data": [{"wav": path, "labels": "mid,mid"}]}; correct it'),
        ('{"data": ' + "[" * 100_000, ': expected {"data": [{"wav": path, "labels": "mid,mid"}]}; correct it'),
        ("{", ': expected {"data": [{"wav": path, "labels": "mid,mid"}]}; correct it'),
        ('{"data": [{"wav": "clips/gone.wav", "labels": "/m/0k4j"}]}', " entry 0: no file {root}/clips/gone.wav; put"),
        ('{"data": [{"wav": "clips/a.wav", "labels": "/m/x"}]}', " entry 0: label '/m/x' is not in the table of class"),
    ],
)
def test_a_wrong_json_is_named(ast: Path, content: str, message: str) -> None:
    (ast / "my_train_data.json").write_text(content)
    with pytest.raises(DataError) as error:
        load_audioset(ast)
    assert str(error.value).startswith(f"{ast / 'my_train_data.json'}{message.replace('{root}', str(ast))}")


def test_a_gap_in_the_classes_is_named(ast: Path) -> None:
    (ast / "my_class_labels_indices.csv").write_text("index,mid,display_name\n0,/m/1,a\n2,/m/2,b\n")
    with pytest.raises(DataError, match=r"line 3: index 2; expected 0 to 1, each once$"):
        load_audioset(ast)


def test_two_tables_of_classes_are_refused(ast: Path) -> None:
    (ast / "class_labels_indices.csv").write_text(CLASSES)
    with pytest.raises(DataError, match=r"both class_labels_indices\.csv and my_class_labels_indices\.csv; leave the"):
        load_audioset(ast)
