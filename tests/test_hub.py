"""Runs and adapters on Hugging Face's hub, which is a folder here: what is uploaded, its card, and what comes back."""

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard
from rich.console import Console

from fastloaa import adapt, load_adapter
from fastloaa.files import FileError
from fastloaa.hub import HubError, from_pretrained, push_to_hub, save_pretrained
from fastloaa.training import Recipe, RunError, load_run, train
from helpers.small import small_ast, small_vit, wake_adapters
from helpers.tone_set import small_recipe, write_tones


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of tones, on a backbone in a file; one clip is broken."""
    folder = tmp_path_factory.mktemp("hub")
    small_ast().save(folder / "backbone.safetensors")
    tones = write_tones(folder / "tones")
    (tones / "300Hz" / "0.wav").write_text("not a sound")
    recipe = small_recipe(tones, epochs=1, weights=str(folder / "backbone.safetensors"))
    train(recipe, folder / "run", console=Console(quiet=True))
    return folder / "run"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub as a folder of repositories; nothing goes over the network."""
    root = tmp_path / "hub"

    class Api:
        def __init__(self, token: str | None = None) -> None:
            pass

        def create_repo(self, repo_id: str, **_: Any) -> Any:
            name = repo_id if "/" in repo_id else f"me/{repo_id}"
            return type("Url", (), {"repo_id": name})

        def upload_folder(self, *, repo_id: str, folder_path: Path, **_: Any) -> str:
            if repo_id.startswith("theirs/"):
                raise ConnectionError("you may not write there")
            shutil.copytree(folder_path, root / repo_id)
            return f"commit/{repo_id}"

    def snapshot(repo_id: str, allow_patterns: list[str], **_: Any) -> str:
        assert not [pattern for pattern in allow_patterns if not pattern.endswith((".safetensors", ".yaml"))]
        return str(download(repo_id))

    def download(repo_id: str, name: str = "", **_: Any) -> Path:
        if not (root / repo_id / name).exists():
            raise FileNotFoundError(f"404 {repo_id}")
        return root / repo_id / name

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return root


def same(one: torch.nn.Module, other: torch.nn.Module, x: torch.Tensor) -> bool:
    with torch.no_grad():
        return torch.equal(one(x), other(x))


def test_a_run_pushed_comes_back(run: Path, hub: Path) -> None:
    backbone = run.parent / "backbone.safetensors"
    assert push_to_hub(run, "me/tones", license="cc-by-4.0") == "commit/me/tones"
    x, expected = torch.randn(2, 64, 128), load_run(run)
    with pytest.raises(RunError, match=r"backbone's weights in a file backbone\.safetensors, which are not with it"):
        from_pretrained("me/tones")
    model = from_pretrained("me/tones", weights=backbone)
    assert same(model, expected, x)
    assert model.labels == expected.labels == ("1000Hz", "3000Hz", "300Hz")
    assert not model.training
    assert same(from_pretrained(hub / "me" / "tones", weights=backbone), expected, x)
    bare = small_ast(3, weights=str(backbone)).eval()
    assert same(load_adapter(bare, "me/tones"), expected, x)
    bare = small_ast(3, weights=str(backbone)).eval()
    assert same(load_adapter(bare, hub / "me" / "tones"), expected, x)  # the folder


def test_nothing_of_this_machine_is_uploaded(run: Path, hub: Path) -> None:
    push_to_hub(run, "tones")
    files = [file for file in (hub / "me" / "tones").rglob("*") if file.is_file()]
    assert {"README.md", "adapter.safetensors", "recipe.yaml", "result.json", "curves.png"} <= {f.name for f in files}
    for file in files:
        assert str(run.parent).encode() not in file.read_bytes(), file
    assert Recipe.load(hub / "me" / "tones" / "recipe.yaml").epochs == 1


def test_the_card_says_what_the_run_did(run: Path, tmp_path: Path) -> None:
    save_pretrained(run, tmp_path / "out", license="cc-by-nc-4.0", base_model="timm/some_vit")
    card, result = ModelCard.load(tmp_path / "out" / "README.md"), json.loads((run / "result.json").read_text())
    data = card.data
    assert (data.license, data.library_name, data.pipeline_tag) == ("cc-by-nc-4.0", "fastloaa", "audio-classification")
    assert (data.base_model, data.base_model_relation) == ("timm/some_vit", "adapter")
    found = {entry.metric_type: entry.metric_value for entry in data.eval_results}
    test = result["test"]
    assert found == {"accuracy": test["accuracy"], "f1": test["macro_f1"], "mean_average_precision": test["mAP"]}
    assert {entry.dataset_name for entry in data.eval_results} == {"tones"}
    for part in (f"{result['trainable_parameters']:,}", "bottleneck 8", "`3000Hz`", "epochs | 1", "1 files could not"):
        assert part in card.text
    (tmp_path / "own").mkdir()
    save_pretrained(run, tmp_path / "own")
    assert ModelCard.load(tmp_path / "own" / "README.md").data.license is None


def test_the_repository_of_timms_weights_is_named(run: Path, tmp_path: Path) -> None:
    """The run of the test has others; what its recipe says decides."""
    shutil.copytree(run, tmp_path / "run")
    Recipe.load(run / "recipe.yaml").replace(weights="timm").save(tmp_path / "run" / "recipe.yaml")
    save_pretrained(tmp_path / "run", tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.base_model == "timm/deit_tiny_distilled_patch16_224.fb_in1k"


def test_adapters_of_a_loop_of_ones_own(hub: Path) -> None:
    small_ast().save(hub.parent / "backbone.safetensors")
    plain = small_ast(weights=hub.parent / "backbone.safetensors")
    adapt(plain, "time", None, bottleneck=4)
    wake_adapters(plain)
    push_to_hub(plain, "me/five")
    again = from_pretrained("me/five", weights=hub.parent / "backbone.safetensors")
    assert same(again, plain.eval(), torch.randn(2, 64, 128))
    vit = adapt(small_vit(), bottleneck=4)
    wake_adapters(vit)
    push_to_hub(vit, "me/vit")
    assert "load_adapter(model," in (hub / "me" / "vit" / "README.md").read_text()
    with pytest.raises(FileError, match=r"of a model that is no AST; build the model, then load_adapter"):
        from_pretrained("me/vit")
    torch.manual_seed(0)
    fresh = small_vit()
    fresh.load_state_dict(vit.state_dict(), strict=False)
    assert same(load_adapter(fresh, "me/vit", check_backbone=False).eval(), vit.eval(), torch.randn(2, 1, 64, 128))


def test_what_cannot_be_had_or_pushed_is_one_line(run: Path, hub: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"me/none: no such file here, and adapter\.safetensors cannot be had from"):
        load_adapter(small_ast(), "me/none")
    with pytest.raises(FileError, match=r"me/none: no such file here, and a model cannot be had from"):
        from_pretrained("me/none")
    with pytest.raises(FileError, match="no such file"):
        load_adapter(small_ast(), "runs/one.safetensors")  # a path, whatever the hub has
    with pytest.raises(HubError, match=r"theirs/x: cannot be pushed \(you may not write there\)"):
        push_to_hub(run, "theirs/x")
    with pytest.raises(RunError, match="of a run that has finished"):
        save_pretrained(tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match="no adapters to save"):
        save_pretrained(small_ast(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"backbone": "hf-hub:someone/model"},
        {"backbone_options": {"checkpoint_path": "weights.pth"}},
        {"backbone_options": {"pretrained_cfg": "x"}, "weights": "timm"},
        {"backbone_options": {"norm_layer": {"file": "weights.pth"}}},
    ],
    ids=str,
)
def test_a_strangers_recipe_loads_nothing_else(run: Path, hub: Path, changes: dict[str, Any]) -> None:
    push_to_hub(run, "me/odd")
    file = hub / "me" / "odd" / "recipe.yaml"
    Recipe.load(file).replace(**changes).save(file)
    with pytest.raises(FileError, match=r"none of timm's|is not one of an architecture; refused"):
        from_pretrained("me/odd", weights=run.parent / "backbone.safetensors")
