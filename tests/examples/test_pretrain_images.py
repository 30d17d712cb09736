"""Training on a folder of images: what it writes, that it learns, and that a killed run goes on."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fastloaa import AST
from fastloaa.files import read_safetensors

SIZE = 32
UPDATES = 24  # 4 passes over 48 images in batches of 8


@pytest.fixture(scope="module")
def script() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "examples")
        import pretrain_images

    return pretrain_images


@pytest.fixture(scope="module")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lying and standing stripes of random width and place; images may lie deeper than the folder of their class."""
    root = tmp_path_factory.mktemp("stripes")
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 12)):
        for name in ("lying", "standing"):
            folder = root / split / name / "images"
            folder.mkdir(parents=True)
            for number in range(count):
                wave = np.sin(2 * np.pi * (np.arange(SIZE) / rng.uniform(5, 9) + rng.random()))
                image = np.broadcast_to(wave[:, None] if name == "lying" else wave, (SIZE, SIZE))
                pixels = np.uint8(127 + 100 * image[..., None].repeat(3, 2))
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


Start = Callable[..., None]


@pytest.fixture
def start(script: ModuleType, stripes: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    def start(out: Path, *more: str, length: str = "--epochs 4") -> None:
        command = f"x --data {stripes} --out {out} {length} --depth 1 --image-size {SIZE} --batch-size 8 --workers 0"
        monkeypatch.setattr("sys.argv", [*command.split(), "--precision", "no", "--smallest-crop", "0.8", *more])
        script.main()

    return start


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_it_learns_and_ast_takes_the_weights(start: Start, tmp_path: Path) -> None:
    start(tmp_path, "--ema", "0.8", "--patch-drop", "0.25", length="--epochs 12")
    described = json.loads((tmp_path / "model.json").read_text())
    assert described["classes"] == ["lying", "standing"]
    assert (described["images"], described["updates"]) == (12 * 48, 12 * 6)
    assert described["validation_images"] == 24
    assert described["top1"] > 0.9
    assert lines(tmp_path)[-1]["top1"] == described["top1"]
    content = (tmp_path / "model.safetensors").read_bytes()
    assert described["sha256"] == hashlib.sha256(content).hexdigest()
    weights, _ = read_safetensors(tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    model = AST(
        3, frames=64, mel_bins=SIZE, backbone=described["model"], backbone_options={"depth": 1},
        weights=tmp_path / "model.safetensors",
    )  # fmt: skip
    colours_summed = weights["patch_embed.proj.weight"].float().sum(1, keepdim=True)
    assert torch.equal(model.backbone.patch_embed.proj.weight, colours_summed)


def test_a_killed_run_goes_on(
    script: ModuleType, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update, done = script.Run.update, []

    def killed(self: Any, *batch: Any) -> Any:
        if len(done) == 10:
            raise KeyboardInterrupt
        done.append(update(self, *batch))
        return done[-1]

    monkeypatch.setattr(script.Run, "update", killed)
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, "--save-minutes", "0")
    assert not (tmp_path / "model.safetensors").exists()
    saved, metadata = read_safetensors(tmp_path / "checkpoint.safetensors")
    assert (metadata["position"]["updates"], metadata["position"]["images"]) == (10, 80)

    def first_after(self: Any, *batch: Any) -> Any:
        """Before its first update, the new run has all that the old one had."""
        if not done:
            states = self.optimiser.state_dict()["state"]
            assert len(states) == len(list(self.plain.parameters()))
            for index, state in states.items():
                for name, value in state.items():
                    assert torch.equal(torch.as_tensor(value), saved[f"optimiser/{index}/{name}"])
            for part, module in (("model", self.plain), ("ema", self.ema.module)):
                for name, tensor in module.state_dict().items():
                    assert torch.equal(tensor, saved[f"{part}/{name}"])
        done.append(update(self, *batch))
        return done[-1]

    done.clear()
    monkeypatch.setattr(script.Run, "update", first_after)
    start(tmp_path)
    assert len(done) == UPDATES - 10
    assert json.loads((tmp_path / "model.json").read_text())["updates"] == UPDATES


def test_the_clock_ends_a_run(
    script: ModuleType, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end of its hours, with the learning rate down where the schedule ends, and with all patches seen."""
    clock = iter(range(0, 10**6, 60))  # a minute passes at each look
    monkeypatch.setattr(script, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    rates, patches = [], []
    update = script.Run.update

    def noted(self: Any, *batch: Any) -> Any:
        loss = update(self, *batch)
        rates.append(self.optimiser.param_groups[0]["lr"])
        patches.append(isinstance(self.plain.patch_drop, torch.nn.Identity))
        return loss

    monkeypatch.setattr(script.Run, "update", noted)
    start(tmp_path, length="--hours 0.5")
    assert len(rates) == 30
    assert rates.index(max(rates)) < 3
    assert rates[-1] < 0.01 * max(rates)
    assert patches == [False] * 26 + [True] * 4
    assert [line["updates"] for line in lines(tmp_path)][-1] == 30


def test_a_new_schedule_starts_from_weights(
    script: ModuleType, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(tmp_path / "first")
    weights, _ = read_safetensors(tmp_path / "first" / "model.safetensors")
    seen = {}

    def stop(self: Any, *_: Any) -> Any:
        seen.update({name: tensor.clone() for name, tensor in self.plain.state_dict().items()})
        raise KeyboardInterrupt

    monkeypatch.setattr(script.Run, "update", stop)
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "second", "--init", str(tmp_path / "first" / "model.safetensors"))
    assert seen.keys() == weights.keys()
    for name, tensor in weights.items():
        assert torch.equal(seen[name], tensor.float())
    with pytest.raises(SystemExit, match="not weights of this transformer"):
        start(tmp_path / "third", "--init", str(tmp_path / "first" / "model.safetensors"), "--depth", "2")
