"""The miniature experiment: equal budgets, speakers apart, and a page that says what came out."""

import argparse
from pathlib import Path
from types import ModuleType

import pytest
import torch

from fastloaa import AST, trainable_parameters
from fastloaa.data import load_splits
from fastloaa.methods import build_method
from fastloaa.training import Recipe
from fastloaa.training.paper import PaperRow
from fastloaa.training.sweep_table import Outcome, SweepTable, Trial
from helpers.miniatures import esc50

ADAPTERS = ("parallel", "time", "freq", "time-freq", "square", "lora")


@pytest.fixture(scope="module")
def miniature() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "examples")
        import miniature

    return miniature


def test_all_adapters_have_the_same_number_of_parameters(miniature: ModuleType) -> None:
    counts = {}
    for name in ADAPTERS:
        row = miniature.ROWS[name]
        model = AST(10, frames=64, backbone=miniature.BACKBONE, backbone_options={"depth": miniature.DEPTH})
        build_method(row.method, row.options).apply(model)
        counts[name] = trainable_parameters(model)
    head = 2 * 192 + 192 * 10 + 10
    assert counts == dict.fromkeys(ADAPTERS, head + miniature.DEPTH * 2 * 54 * 192)  # down and up, 54 wide in all


def test_a_fold_is_a_speaker(miniature: ModuleType, tmp_path: Path) -> None:
    for speaker in ("theo", "jackson"):
        for digit in range(3):
            for take in (0, miniature.TAKES - 1, miniature.TAKES):
                (tmp_path / "recordings").mkdir(exist_ok=True)
                (tmp_path / "recordings" / f"{digit}_{speaker}_{take}.wav").touch()
    table, speakers = miniature.speaker_table(tmp_path / "recordings", tmp_path / "fsdd.csv")
    assert speakers == ["jackson", "theo"]
    splits = load_splits(table, test_fold=2)
    assert {clip.path.stem.split("_")[1] for clip in splits.test} == {"theo"}
    assert {clip.path.stem.split("_")[1] for clip in splits.train} == {"jackson"}
    assert splits.classes == ("0", "1", "2")
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (6, 0, 6)


def test_the_rate_is_the_one_that_recognises_most(miniature: ModuleType, tmp_path: Path) -> None:
    """One step with a rate of 1e-9 leaves a random head, some with 1e-2 tell two tones apart."""
    torch.manual_seed(0)
    backbone = tmp_path / "backbone.safetensors"
    AST(2, frames=32, backbone=miniature.BACKBONE, backbone_options={"depth": miniature.DEPTH}).save(backbone)
    base = miniature.recipe(esc50(tmp_path / "esc"), backbone, frames=32, time_mask=0, epochs=8)
    rows = {"probe": miniature.ROWS["probe"]}
    assert miniature.choose_rates(base, rows, [1e-9, 1e-2], tmp_path / "out") == {"probe": 1e-2}


def test_backbones_are_files_that_ast_takes(miniature: ModuleType, tmp_path: Path) -> None:
    """The same transformer each time; what was drawn once stays, so that an interrupted comparison goes on."""
    arguments = argparse.Namespace(out=tmp_path, epochs=None)
    options = {"backbone": miniature.BACKBONE, "backbone_options": {"depth": miniature.DEPTH}}
    images, random = (
        AST(10, frames=64, weights=miniature.backbone_file(name, arguments), **options) for name in ("images", "random")
    )
    again = AST(10, frames=64, weights=miniature.backbone_file("random", arguments), **options)
    for name, weight in random.backbone.state_dict().items():
        assert torch.equal(weight, again.backbone.state_dict()[name])
    assert not torch.equal(images.backbone.blocks[0].attn.qkv.weight, random.backbone.blocks[0].attn.qkv.weight)


@pytest.mark.parametrize(
    ("given", "stated"),
    [
        ("--esc10 /home/me/esc --out /tmp/out --doc page.md", "--esc10 DIR"),
        (
            "--fsdd digits --backbones images words --seeds 0 --rates 0.1 --precision bf16 --epochs 2",
            "--fsdd DIR --backbones images words --seeds 0 --rates 0.1 --precision bf16 --epochs 2",
        ),
    ],
)
def test_the_page_states_what_repeats_it(miniature: ModuleType, given: str, stated: str) -> None:
    parser = miniature.options()
    arguments = parser.parse_args(given.split())
    assert miniature.command(parser, arguments) == f"python examples/miniature.py {stated}"
    again = parser.parse_args(stated.split())
    same = vars(arguments).keys() - {"esc10", "fsdd", "out", "doc"}
    assert {name: getattr(again, name) for name in same} == {name: getattr(arguments, name) for name in same}


def test_the_page(miniature: ModuleType, tmp_path: Path) -> None:
    """Two backbones on one data set: LoAA is 5 points above the rest, images are 10 points above random weights."""
    recipe = Recipe(data="x", backbone_options={}, frames=64)
    tables = {}
    for backbone, names in (("images", tuple(miniature.ROWS)), ("random", miniature.BACKBONES["random"])):
        trials = [Trial(name, 1, seed, recipe, Path(name)) for seed in (0, 1) for name in names]
        outcomes = [
            Outcome(
                t.name, 1, t.seed, 1000,
                0.5 + 0.1 * t.seed + 0.05 * (t.name == "time-freq") + 0.1 * (backbone == "images"),
                0.5, 1800.0, 9, "last epoch",
            )
            for t in trials
        ]  # fmt: skip
        tables["ESC-10", backbone] = SweepTable(dict.fromkeys(names, PaperRow()), trials, outcomes, {})
    rates = {"images": dict.fromkeys(miniature.ROWS, 1e-3), "random": dict.fromkeys(miniature.BACKBONES["random"], 0.1)}
    text = miniature.page(tables, rates, [1e-3, 0.1], "python miniature.py --esc10 DIR", "this machine")
    assert "`python miniature.py --esc10 DIR`, whatever it says, on\nthis machine; every run" in text
    for line in (
        "| method | trainable parameters | ESC-10, images | ESC-10, random "
        "| paper: EPIC-SOUNDS top-1 | paper: ESC-50 | paper: SPC-2 |",
        "| LoAA Attn(T) FFN(F) | 1,000 | 70.0 ± 7.1 | 60.0 ± 7.1 | 54.14 | 87.1 | 96.9 |",
        "| square (3, 3) | 1,000 | 65.0 ± 7.1 |  | 53.44 Attn, 53.24 FFN | – | – |",
        "| LoAA Attn(T) FFN(F) | +5.0 ± 0.0 | +5.0 ± 0.0 |",
        "| square (3, 3) | +0.0 ± 0.0 |  |",
        "From images, against the same method from random weights, in points:",
        "| LoAA Attn(T) FFN(F) | +10.0 ± 0.0 |",
        "| linear probe | 0.001 | 0.1 |",
        "| LoRA | 0.001 |  |",
    ):
        assert line in text.splitlines()
    miniature.write_runs(tables, tmp_path / "runs.csv")
    lines = (tmp_path / "runs.csv").read_text().splitlines()
    assert lines[0] == "data,backbone,name,fold,seed,trainable_parameters,accuracy,mAP,seconds"
    assert lines[1] == "ESC-10,images,probe,1,0,1000,0.6,0.5,1800.0"
    assert len(lines) == 1 + 2 * len(miniature.ROWS) + 2 * len(miniature.BACKBONES["random"])
    assert "1 folds, 2 seeds, 16 runs, 8.0 hours of training" in text
    assert miniature.reading(tmp_path / "page.md") == ""


def test_what_a_person_wrote_above_the_tables_stays(miniature: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    trials = [Trial(name, 1, 0, Recipe(data="x", frames=64), Path(name)) for name in miniature.ROWS]
    outcomes = [Outcome(t.name, 1, 0, 9, 0.5, 0.5, 1.0, 9, "last epoch") for t in trials]
    tables = {("ESC-10", "images"): SweepTable(dict.fromkeys(miniature.ROWS, PaperRow()), trials, outcomes, {})}
    rates = {"images": dict.fromkeys(miniature.ROWS, 1e-3)}
    page.write_text(f"# Old\n\n{miniature.READING}\nImages help.\n\n{miniature.TABLES}\n| old |\n")
    for _ in range(2):
        page.write_text(miniature.page(tables, rates, [1e-3], "python", "this machine", miniature.reading(page)))
    assert page.read_text().count("## What holds\n\nImages help.\n\n## Tables\n") == 1
    assert "| old |" not in page.read_text()
