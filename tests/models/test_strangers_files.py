"""What a file says of its model names nothing that is to be fetched or read besides."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm

from fastloaa import AST, adapt
from fastloaa.export import load_merged, merge, save_merged
from fastloaa.files import FileError, read_safetensors, write_safetensors
from fastloaa.methods import build_method
from helpers.small import small_ast


def write_model(path: Path) -> Callable[[], object]:
    small_ast().save(path)
    return lambda: AST.load(path)


def write_merged(path: Path) -> Callable[[], object]:
    save_merged(merge(adapt(small_ast(), bottleneck=4)), path)
    return lambda: load_merged(path)


def write_adapters(path: Path) -> Callable[[], object]:
    return write_method("loaa", path)


def write_inserted(path: Path) -> Callable[[], object]:
    return write_method("convpass", path)


def write_method(name: str, path: Path) -> Callable[[], object]:
    method = build_method(name, {})
    method.save(method.apply(small_ast()), path)
    return lambda: method.load(path, None)


@pytest.mark.parametrize("write", [write_model, write_merged, write_adapters, write_inserted])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "hf-hub:someone/model"}, "backbone 'hf-hub:someone/model' is none of timm's"),
        ({"backbone": "local-dir:/tmp/model"}, "backbone 'local-dir:/tmp/model' is none of timm's"),
        ({"backbone_options": {"checkpoint_path": "w.pth"}}, "option 'checkpoint_path' .* refused"),
        ({"backbone_options": {"norm_layer": "/tmp/x"}}, "option 'norm_layer' .* refused"),
        ({"backbone_options": ["depth"]}, "its backbone_options are list"),
    ],
    ids=str,
)
def test_refused_before_anything_is_built(
    write: Callable[[Path], Callable[[], object]],
    changes: dict[str, Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "model.safetensors"
    load = write(path)
    state, metadata = read_safetensors(path)
    key = "config" if "config" in metadata else "model"
    write_safetensors(path, state, metadata | {key: metadata[key] | changes})
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: pytest.fail("was built"))
    with pytest.raises(FileError, match=message) as refused:
        load()
    assert str(refused.value).startswith(f"{path}: ")
